-- The chain of the last entry that the log has no more; zero bytes where it has all. Processes of the version before neither read
-- it nor miss it: they never move a horizon.
ALTER TABLE spaces ADD COLUMN horizon_chain bytea NOT NULL
  DEFAULT '\x0000000000000000000000000000000000000000000000000000000000000000';

-- Tombstones are removed when the horizon has passed them.
CREATE INDEX tombstones ON records (space_no, version) WHERE payload IS NULL;
