-- Every key begins with the space, as a number, because it stands in every row. Spaces are found by their name and tokens by
-- their hash. Texts are compared by their bytes, as in the protocol.

-- head and chain are those of the last log entry; log is minted with the space. The row is the space's counter: whoever writes
-- to the space holds it first. Room in its page, because it is updated with every transaction.
CREATE TABLE spaces (
  space text COLLATE "C" PRIMARY KEY, space_no bigint GENERATED ALWAYS AS IDENTITY UNIQUE, log text COLLATE "C" NOT NULL,
  head bigint NOT NULL, chain bytea NOT NULL, horizon bigint NOT NULL, created_at text NOT NULL
) WITH (fillfactor = 30);

-- payload NULL: a tombstone. marks: what conflict policies remember of a record, as JSON.
CREATE TABLE records (
  space_no bigint NOT NULL, entity text COLLATE "C" NOT NULL, id text COLLATE "C" NOT NULL, version bigint NOT NULL,
  edit_version bigint NOT NULL, payload text COLLATE "C", marks text, PRIMARY KEY (space_no, entity, id)
) WITH (fillfactor = 90);

-- parts 0: the entry has its changes in it.
CREATE TABLE log (
  space_no bigint NOT NULL, seq bigint NOT NULL, change_count bigint NOT NULL, chain bytea NOT NULL, entry text COLLATE "C" NOT NULL,
  parts bigint NOT NULL, PRIMARY KEY (space_no, seq)
);
CREATE TABLE log_parts (
  space_no bigint NOT NULL, seq bigint NOT NULL, part bigint NOT NULL, body text COLLATE "C" NOT NULL,
  PRIMARY KEY (space_no, seq, part)
);

-- Every group with a final verdict, for ever. seq NULL: rejected. digest NULL: discarded before it arrived. flags: soft rules
-- that an accepted group broke, as JSON.
CREATE TABLE groups (
  space_no bigint NOT NULL, group_id text COLLATE "C" NOT NULL, digest bytea, seq bigint, epoch_no bigint, device_seq bigint,
  decided_at text NOT NULL, flags text, PRIMARY KEY (space_no, group_id)
);

-- What a rejected group was and why it was rejected; came: their order. closed_as: amended, discarded, compensated, or
-- replaced by a group that was rejected as well.
CREATE TABLE rejections (
  space_no bigint NOT NULL, group_id text COLLATE "C" NOT NULL, came bigint GENERATED ALWAYS AS IDENTITY, result text NOT NULL,
  group_type text, actor text, created_at text, replaces text, changes text, closed_as text, closed_by text, closed_actor text,
  closed_reason text, closed_at text, PRIMARY KEY (space_no, group_id)
);
CREATE INDEX rejections_as_they_came ON rejections (space_no, came);

-- The lives of devices. highest_seq 0: known from a handshake only.
CREATE TABLE devices (
  space_no bigint NOT NULL, device text COLLATE "C" NOT NULL, epoch text COLLATE "C" NOT NULL, epoch_no bigint NOT NULL,
  highest_seq bigint NOT NULL, first_seen text NOT NULL, pushed_at text, previous_epoch text, previous_seq bigint,
  PRIMARY KEY (space_no, device, epoch), UNIQUE (space_no, epoch_no)
) WITH (fillfactor = 50);
CREATE TABLE numbers (
  space_no bigint NOT NULL, epoch_no bigint NOT NULL, device_seq bigint NOT NULL, group_id text COLLATE "C" NOT NULL,
  PRIMARY KEY (space_no, epoch_no, device_seq)
);

-- A group and its replacements are a family, named by one of them; at most one member is accepted.
CREATE TABLE families (
  space_no bigint NOT NULL, group_id text COLLATE "C" NOT NULL, root text COLLATE "C" NOT NULL, PRIMARY KEY (space_no, group_id)
);
CREATE INDEX families_by_root ON families (space_no, root);
CREATE TABLE family_winners (
  space_no bigint NOT NULL, root text COLLATE "C" NOT NULL, group_id text COLLATE "C" NOT NULL, PRIMARY KEY (space_no, root)
);
CREATE TABLE family_closures (
  space_no bigint NOT NULL, root text COLLATE "C" NOT NULL, of_group text NOT NULL, closed_as text NOT NULL, closed_by text,
  actor text, reason text, PRIMARY KEY (space_no, root)
);

-- hash: SHA-256 of the token, which is stored nowhere. act_as: whose groups the token may send beside its actor's, as a JSON
-- array; "*": everybody's whose roles are known.
CREATE TABLE tokens (
  space_no bigint NOT NULL, token_id text COLLATE "C" NOT NULL, hash bytea NOT NULL UNIQUE, roles text NOT NULL, actor text,
  device text, created_at text COLLATE "C" NOT NULL, revoked_at text, expires_at text, act_as text,
  PRIMARY KEY (space_no, token_id)
);

-- The roles of people, for groups that a device sends in their names.
CREATE TABLE actors (
  space_no bigint NOT NULL, actor text COLLATE "C" NOT NULL, roles text NOT NULL, since text NOT NULL,
  PRIMARY KEY (space_no, actor)
);

-- Tokens of another party that are refused here before they end. jti: SHA-256 of the id in them.
CREATE TABLE revoked_jwts (jti bytea PRIMARY KEY, revoked_at text NOT NULL);

-- References and unique values. list: SHA-256 of the fields, a zero byte and the value, because a value may be larger than an
-- index takes.
CREATE TABLE index_entries (
  space_no bigint NOT NULL, entity text COLLATE "C" NOT NULL, list bytea NOT NULL, id text COLLATE "C" NOT NULL,
  is_unique boolean NOT NULL, PRIMARY KEY (space_no, entity, list, id)
);

-- The schemas that were in force, for all spaces. in_force false: records are still being brought to it.
CREATE TABLE schemas (
  version bigint PRIMARY KEY, text text NOT NULL, since text NOT NULL, in_force boolean NOT NULL
);
-- How far a space was brought to the schema with this version: the last record looked at, and whether that was all.
CREATE TABLE upgrades (
  space_no bigint NOT NULL, version bigint NOT NULL, entity text COLLATE "C", id text COLLATE "C", is_done boolean NOT NULL,
  PRIMARY KEY (space_no, version)
);

-- Soft rules that accepted groups broke. cleared_by: the seq of the group that cleared it.
CREATE TABLE flags (
  space_no bigint NOT NULL, seq bigint NOT NULL, place bigint NOT NULL, code text NOT NULL, rule text NOT NULL,
  message text NOT NULL, entity text, id text, cleared_by bigint, PRIMARY KEY (space_no, seq, place)
);
CREATE INDEX open_flags ON flags (space_no, seq, place) WHERE cleared_by IS NULL;

-- The highest number of a sequence in a record that the device made.
CREATE TABLE sequences (
  space_no bigint NOT NULL, device text COLLATE "C" NOT NULL, sequence text COLLATE "C" NOT NULL, highest bigint NOT NULL,
  PRIMARY KEY (space_no, device, sequence)
);

-- Groups that a device sends in parts: what arrived so far. bytes: of the changes staged, as one array.
CREATE TABLE uploads (
  space_no bigint NOT NULL, device text COLLATE "C" NOT NULL, group_id text COLLATE "C" NOT NULL, bytes bigint NOT NULL,
  touched_ms bigint NOT NULL, PRIMARY KEY (space_no, device, group_id)
);
CREATE TABLE upload_parts (
  space_no bigint NOT NULL, device text COLLATE "C" NOT NULL, group_id text COLLATE "C" NOT NULL, part bigint NOT NULL,
  body text COLLATE "C" NOT NULL, PRIMARY KEY (space_no, device, group_id, part)
);
