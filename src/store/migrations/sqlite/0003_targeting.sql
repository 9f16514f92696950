-- Targeting: segments, variants, overrides and identities. Weights are thousandths of a percent,
-- in JSON by the variant's id: a variant that is not named has none. Ids of states are bucketing
-- seeds and must not meet, so each kind counts from another number; all fit into 32 bits.

ALTER TABLE environments ADD COLUMN hide_disabled_flags BIGINT NOT NULL DEFAULT 0;
ALTER TABLE environments ADD COLUMN allow_client_traits BIGINT NOT NULL DEFAULT 1;
ALTER TABLE environments ADD COLUMN hide_sensitive_data BIGINT NOT NULL DEFAULT 0;
ALTER TABLE environments ADD COLUMN persist_traits BIGINT NOT NULL DEFAULT 1;

ALTER TABLE features ADD COLUMN value_type TEXT NOT NULL DEFAULT 'plain';
ALTER TABLE features ADD COLUMN server_key_only BIGINT NOT NULL DEFAULT 0;

ALTER TABLE flags ADD COLUMN weights TEXT NOT NULL DEFAULT '{}';

CREATE TABLE variants (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    feature_id BIGINT  NOT NULL REFERENCES features (id) ON DELETE CASCADE,
    key        TEXT    NOT NULL,
    value      TEXT    NOT NULL,
    weight     BIGINT  NOT NULL,
    UNIQUE (feature_id, key)
);

CREATE TABLE segments (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    project_id  BIGINT  NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    key         TEXT    NOT NULL,
    name        TEXT    NOT NULL,
    description TEXT    NOT NULL,
    rules       TEXT    NOT NULL,
    created_at  BIGINT  NOT NULL,
    UNIQUE (project_id, key)
);

-- position: 0 is the strongest of a flag's overrides.
CREATE TABLE segment_overrides (
    id             INTEGER PRIMARY KEY AUTOINCREMENT,
    environment_id BIGINT  NOT NULL REFERENCES environments (id) ON DELETE CASCADE,
    feature_id     BIGINT  NOT NULL REFERENCES features (id) ON DELETE CASCADE,
    segment_id     BIGINT  NOT NULL REFERENCES segments (id) ON DELETE CASCADE,
    uuid           TEXT    NOT NULL,
    position       BIGINT  NOT NULL,
    enabled        BIGINT  NOT NULL,
    value          TEXT    NOT NULL,
    weights        TEXT    NOT NULL,
    UNIQUE (environment_id, feature_id, segment_id)
);
CREATE INDEX segment_overrides_feature ON segment_overrides (feature_id);
CREATE INDEX segment_overrides_segment ON segment_overrides (segment_id);

CREATE TABLE identities (
    id             INTEGER PRIMARY KEY AUTOINCREMENT,
    environment_id BIGINT  NOT NULL REFERENCES environments (id) ON DELETE CASCADE,
    uuid           TEXT    NOT NULL,
    identifier     TEXT    NOT NULL,
    traits         TEXT    NOT NULL,
    created_at     BIGINT  NOT NULL,
    UNIQUE (environment_id, identifier)
);

-- How many there are is asked whenever one is made, too often to count them.
ALTER TABLE environments ADD COLUMN identities BIGINT NOT NULL DEFAULT 0;
CREATE TRIGGER identities_made AFTER INSERT ON identities BEGIN
    UPDATE environments SET identities = identities + 1 WHERE id = NEW.environment_id;
END;
CREATE TRIGGER identities_gone AFTER DELETE ON identities BEGIN
    UPDATE environments SET identities = identities - 1 WHERE id = OLD.environment_id;
END;

-- environment_id is the identity's: an environment's overrides are few among its identities.
CREATE TABLE identity_overrides (
    id             INTEGER PRIMARY KEY AUTOINCREMENT,
    environment_id BIGINT  NOT NULL REFERENCES environments (id) ON DELETE CASCADE,
    identity_id    BIGINT  NOT NULL REFERENCES identities (id) ON DELETE CASCADE,
    feature_id     BIGINT  NOT NULL REFERENCES features (id) ON DELETE CASCADE,
    uuid           TEXT    NOT NULL,
    enabled        BIGINT  NOT NULL,
    value          TEXT    NOT NULL,
    UNIQUE (identity_id, feature_id)
);
CREATE INDEX identity_overrides_environment ON identity_overrides (environment_id);
CREATE INDEX identity_overrides_feature ON identity_overrides (feature_id);

INSERT INTO sqlite_sequence (name, seq) VALUES ('segment_overrides', 1000000000);
INSERT INTO sqlite_sequence (name, seq) VALUES ('identity_overrides', 2000000000);
