-- ancestors: the logs that this one was restored from, the nearest first, as JSON; NULL: none. It stands here because whoever
-- locks the space reads it with the row.
ALTER TABLE spaces ADD COLUMN ancestors text;

-- Groups that an earlier log lost and that devices brought back: their places there, and here. now_seq NULL: rejected here.
CREATE TABLE healed (
  space_no bigint NOT NULL, log text COLLATE "C" NOT NULL, seq bigint NOT NULL, group_id text COLLATE "C" NOT NULL, now_seq bigint,
  PRIMARY KEY (space_no, log, seq)
);
