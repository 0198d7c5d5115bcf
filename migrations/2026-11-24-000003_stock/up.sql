-- Every pair exists as a number of its size, and a live reservation owns exactly one: overselling is
-- impossible in the schema even where the counters were forgotten.
CREATE TABLE pairs (
    drop_id     uuid NOT NULL,
    size        text NOT NULL,
    pair_number integer NOT NULL CHECK (pair_number > 0),
    PRIMARY KEY (drop_id, size, pair_number),
    FOREIGN KEY (drop_id, size) REFERENCES drop_sizes (drop_id, size)
);

-- `user_id` refers to no table on purpose: an insert would lock the buyer's row, and the id comes from
-- a verified token.
CREATE TABLE reservations (
    drop_id         uuid NOT NULL,
    id              uuid NOT NULL,
    size            text NOT NULL,
    pair_number     integer NOT NULL,
    user_id         uuid NOT NULL,
    status          text NOT NULL CHECK (status IN ('active', 'purchased', 'expired', 'cancelled')),
    -- The price at the moment of reserving; a purchase charges this.
    price_amount    integer NOT NULL,
    price_currency  text NOT NULL,
    idempotency_key text NOT NULL,
    created_at      timestamptz NOT NULL,
    expires_at      timestamptz NOT NULL CHECK (expires_at > created_at),
    closed_at       timestamptz,
    PRIMARY KEY (drop_id, id),
    FOREIGN KEY (drop_id, size, pair_number) REFERENCES pairs (drop_id, size, pair_number),
    CHECK ((status = 'active') = (closed_at IS NULL)),
    -- No purchase at or after the deadline, no expiry before it.
    CHECK (status <> 'purchased' OR closed_at < expires_at),
    CHECK (status <> 'expired' OR closed_at >= expires_at),
    CONSTRAINT reservations_idempotency_key UNIQUE (drop_id, user_id, idempotency_key)
) WITH (fillfactor = 80);

CREATE UNIQUE INDEX reservations_one_live_per_pair ON reservations (drop_id, size, pair_number)
    WHERE status IN ('active', 'purchased');
CREATE INDEX reservations_due ON reservations (drop_id, expires_at, id) WHERE status = 'active';
CREATE INDEX reservations_user ON reservations (user_id, created_at DESC, id DESC);

-- A purchase is named by the reservation it came from: one hold, one purchase.
CREATE TABLE purchases (
    drop_id        uuid NOT NULL,
    reservation_id uuid NOT NULL,
    size           text NOT NULL,
    pair_number    integer NOT NULL,
    user_id        uuid NOT NULL,
    price_amount   integer NOT NULL,
    price_currency text NOT NULL,
    purchased_at   timestamptz NOT NULL,
    PRIMARY KEY (drop_id, reservation_id),
    FOREIGN KEY (drop_id, reservation_id) REFERENCES reservations (drop_id, id)
);

CREATE INDEX purchases_newest ON purchases (drop_id, purchased_at DESC, reservation_id DESC);
CREATE INDEX purchases_user ON purchases (user_id, purchased_at DESC, reservation_id DESC);

-- The ledger, append-only: one row per version of a drop. The arrays run side by side, one place per
-- size that changed; the last four are the counters after the change. Added up it gives the counters.
CREATE TABLE stock_events (
    drop_id   uuid NOT NULL REFERENCES drops (id),
    version   integer NOT NULL CHECK (version > 0),
    kind      text NOT NULL CHECK (kind IN ('created', 'traded', 'cancelled')),
    at        timestamptz NOT NULL,
    sizes     text[] NOT NULL,
    restocked integer[] NOT NULL,
    reserved  integer[] NOT NULL,
    purchased integer[] NOT NULL,
    released  integer[] NOT NULL,
    expired   integer[] NOT NULL,
    total     integer[] NOT NULL,
    available integer[] NOT NULL,
    held      integer[] NOT NULL,
    sold      integer[] NOT NULL,
    PRIMARY KEY (drop_id, version),
    CHECK ((kind = 'created') = (version = 1))
);
