-- Only what asks for rejections in their order may take this index: its first column is that of the primary key, and a plan that was
-- made while the table was empty would read all rejections of a space to find one. Those of the version before, which does not say
-- `came > 0`, sort them until it is gone.
DROP INDEX rejections_as_they_came;
CREATE INDEX rejections_in_order ON rejections (space_no, came) WHERE came > 0;
