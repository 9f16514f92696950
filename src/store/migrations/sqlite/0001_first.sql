-- Times are microseconds since the epoch. Booleans are 0 or 1 and values are JSON text, so that the
-- same statements run on PostgreSQL. AUTOINCREMENT where an id must never be used again: other
-- parts remember environments, features and states by id.

CREATE TABLE projects (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    key        TEXT    NOT NULL UNIQUE,
    name       TEXT    NOT NULL,
    created_at BIGINT  NOT NULL
);

-- An environment without a project is push-only: its flags live in another system.
CREATE TABLE environments (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    project_id BIGINT  REFERENCES projects (id) ON DELETE CASCADE,
    key        TEXT    NOT NULL,
    name       TEXT    NOT NULL,
    client_key TEXT    NOT NULL UNIQUE,
    revision   BIGINT  NOT NULL,
    updated_at BIGINT  NOT NULL,
    created_at BIGINT  NOT NULL,
    UNIQUE (project_id, key)
);

CREATE TABLE server_keys (
    id             INTEGER PRIMARY KEY AUTOINCREMENT,
    environment_id BIGINT  NOT NULL REFERENCES environments (id) ON DELETE CASCADE,
    name           TEXT    NOT NULL,
    hash           TEXT    NOT NULL UNIQUE,
    created_at     BIGINT  NOT NULL
);
CREATE INDEX server_keys_environment ON server_keys (environment_id);

-- folded_key: keys of one project differ in more than case.
CREATE TABLE features (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    project_id  BIGINT  NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    key         TEXT    NOT NULL,
    folded_key  TEXT    NOT NULL,
    description TEXT    NOT NULL,
    tags        TEXT    NOT NULL,
    enabled     BIGINT  NOT NULL,
    value       TEXT    NOT NULL,
    created_at  BIGINT  NOT NULL,
    UNIQUE (project_id, folded_key)
);

CREATE TABLE flags (
    id             INTEGER PRIMARY KEY AUTOINCREMENT,
    environment_id BIGINT  NOT NULL REFERENCES environments (id) ON DELETE CASCADE,
    feature_id     BIGINT  NOT NULL REFERENCES features (id) ON DELETE CASCADE,
    uuid           TEXT    NOT NULL,
    enabled        BIGINT  NOT NULL,
    value          TEXT    NOT NULL,
    UNIQUE (environment_id, feature_id)
);
CREATE INDEX flags_feature ON flags (feature_id);

-- The audit trail and the outbox in one. No foreign keys: what happened stays when the thing goes.
CREATE TABLE change_events (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    environment_id  BIGINT,
    revision        BIGINT,
    updated_at      BIGINT,
    at              BIGINT NOT NULL,
    actor           TEXT   NOT NULL,
    address         TEXT   NOT NULL,
    action          TEXT   NOT NULL,
    project_key     TEXT,
    environment_key TEXT,
    subject         TEXT   NOT NULL,
    before_state    TEXT   NOT NULL,
    after_state     TEXT   NOT NULL
);
CREATE INDEX change_events_environment ON change_events (environment_id, revision);

CREATE TABLE tokens (
    id             INTEGER PRIMARY KEY AUTOINCREMENT,
    name           TEXT    NOT NULL,
    hash           TEXT    NOT NULL UNIQUE,
    role           TEXT    NOT NULL,
    project_id     BIGINT  REFERENCES projects (id) ON DELETE CASCADE,
    environment_id BIGINT  REFERENCES environments (id) ON DELETE CASCADE,
    created_at     BIGINT  NOT NULL
);

-- Answers to changes that carried an Idempotency-Key, kept for a day.
CREATE TABLE idempotent_answers (
    token_id     BIGINT NOT NULL,
    key          TEXT   NOT NULL,
    request_hash TEXT   NOT NULL,
    status       BIGINT NOT NULL,
    body         TEXT   NOT NULL,
    created_at   BIGINT NOT NULL,
    PRIMARY KEY (token_id, key)
);
CREATE INDEX idempotent_answers_age ON idempotent_answers (created_at);

-- How often SDKs say they evaluated a flag, for each day (UTC, `2026-01-31`).
CREATE TABLE evaluation_counts (
    environment_id BIGINT NOT NULL REFERENCES environments (id) ON DELETE CASCADE,
    feature_id     BIGINT NOT NULL REFERENCES features (id) ON DELETE CASCADE,
    day            TEXT   NOT NULL,
    count          BIGINT NOT NULL,
    PRIMARY KEY (environment_id, feature_id, day)
);
