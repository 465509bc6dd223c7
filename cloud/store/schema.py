"""The tables of the store's file."""

from typing import Final

SCHEMA_VERSION: Final = 1

SCHEMA: Final = """
CREATE TABLE name (
    kind TEXT NOT NULL,
    id INTEGER NOT NULL,
    name TEXT NOT NULL,         -- JSON
    PRIMARY KEY (kind, id)
) WITHOUT ROWID;
CREATE TABLE chunk (
    id INTEGER PRIMARY KEY AUTOINCREMENT,   -- marks count on it to grow only
    machine INTEGER NOT NULL,
    hour INTEGER NOT NULL,      -- of all its rows: whole hours since 1970 UTC
    rows BLOB NOT NULL,
    rest BLOB                   -- JSON: [gateway, sequence, object] of the rows that hold more than columns
);
CREATE INDEX chunk_by_machine ON chunk (machine, hour);
CREATE TABLE stored_range (
    gateway INTEGER NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    PRIMARY KEY (gateway, first)
) WITHOUT ROWID;
CREATE TABLE gateway (
    id INTEGER PRIMARY KEY,
    first_sequence INTEGER,
    status BLOB,
    received_us INTEGER
);
CREATE TABLE dirty (
    machine INTEGER NOT NULL,
    hour INTEGER NOT NULL,
    mark INTEGER NOT NULL,
    why TEXT,                   -- what else than late records is the cause
    PRIMARY KEY (machine, hour)
) WITHOUT ROWID;
CREATE TABLE dead_letter (
    id INTEGER PRIMARY KEY,
    received_us INTEGER NOT NULL,
    topic TEXT NOT NULL,
    reason TEXT NOT NULL,
    payload BLOB NOT NULL,
    key TEXT UNIQUE
);
CREATE TABLE closed_shift (
    scope TEXT NOT NULL,
    start_us INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    end_us INTEGER NOT NULL,
    body BLOB NOT NULL,         -- JSON of cloud.views.Revision
    PRIMARY KEY (scope, start_us, revision)
) WITHOUT ROWID;
CREATE TABLE alert (
    id TEXT PRIMARY KEY,
    raised_us INTEGER NOT NULL,
    is_open INTEGER NOT NULL,
    body BLOB NOT NULL          -- JSON of cloud.views.AlertView
) WITHOUT ROWID;
CREATE INDEX alert_open ON alert (is_open, raised_us);
CREATE TABLE event (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    topic TEXT NOT NULL,
    payload BLOB NOT NULL
);
CREATE TABLE job_run (
    name TEXT PRIMARY KEY,
    started_us INTEGER NOT NULL,
    took_us INTEGER NOT NULL,
    runs INTEGER NOT NULL,
    failures INTEGER NOT NULL,
    result TEXT NOT NULL,
    error TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE correction (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    body BLOB NOT NULL
);
"""
LATER_TABLES: Final = """
CREATE TABLE IF NOT EXISTS delivery (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    channel TEXT NOT NULL,
    payload BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS delivery_by_channel ON delivery (channel, id);
CREATE TABLE IF NOT EXISTS after_lock (
    id INTEGER PRIMARY KEY,
    machine INTEGER NOT NULL,
    hour INTEGER NOT NULL,
    received_us INTEGER NOT NULL,
    rows BLOB NOT NULL,         -- this and the next as in chunk
    rest BLOB
);
CREATE INDEX IF NOT EXISTS after_lock_by_machine ON after_lock (machine, hour);
CREATE TABLE IF NOT EXISTS mute (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    end_us INTEGER NOT NULL,
    body BLOB NOT NULL          -- JSON of cloud.views.MuteView
);
CREATE INDEX IF NOT EXISTS mute_by_end ON mute (end_us);
CREATE TABLE IF NOT EXISTS errand (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    body BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS channel (
    name TEXT PRIMARY KEY,
    body BLOB NOT NULL          -- JSON of cloud.views.ChannelView
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS closed_log (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    scope TEXT NOT NULL,
    start_us INTEGER NOT NULL,
    revision INTEGER NOT NULL
);
INSERT INTO closed_log (scope, start_us, revision)
    SELECT scope, start_us, revision FROM closed_shift
    WHERE NOT EXISTS (SELECT 1 FROM closed_log) ORDER BY start_us, scope, revision;
CREATE TABLE IF NOT EXISTS changed (
    machine INTEGER PRIMARY KEY,
    times INTEGER NOT NULL      -- how often its past was, as marks in dirty tell that
);
CREATE TABLE IF NOT EXISTS note (
    name TEXT PRIMARY KEY,
    body BLOB NOT NULL          -- JSON of the part that wants to know it
) WITHOUT ROWID;
"""
"""Made in files that lack them; programs that do not know them leave them alone."""
