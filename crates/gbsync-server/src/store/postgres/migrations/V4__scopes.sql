-- Where a record is seen, as a JSON array of scopes; NULL: everywhere.
ALTER TABLE records ADD COLUMN scopes text;
-- Where the changes of an entry are seen, as runs of changes; NULL: it is from before its space had scopes.
ALTER TABLE log ADD COLUMN scopes text;
-- The scopes that a token opens, and that the author of a rejected group held; NULL: all.
ALTER TABLE tokens ADD COLUMN scopes text;
ALTER TABLE rejections ADD COLUMN scopes text;
