-- The catalogue. A drop's row is also its mutex: whoever changes stock holds it FOR UPDATE.
-- `drop_id` leads every key of the stock tables, so they can be sharded by drop as they are.
CREATE TABLE drops (
    id             uuid PRIMARY KEY,
    name           text NOT NULL CHECK (name <> ''),
    description    text,
    image_url      text,
    -- In the currency's minor unit.
    price_amount   integer NOT NULL CHECK (price_amount > 0),
    price_currency text NOT NULL CHECK (price_currency ~ '^[A-Z]{3}$'),
    starts_at      timestamptz NOT NULL,
    ends_at        timestamptz CHECK (ends_at > starts_at),
    hold_seconds   integer NOT NULL CHECK (hold_seconds > 0),
    purchase_limit integer NOT NULL CHECK (purchase_limit > 0),
    cancelled_at   timestamptz,
    -- Rises by one with each committed change; each version has its row in `stock_events`.
    stock_version  integer NOT NULL CHECK (stock_version > 0),
    created_at     timestamptz NOT NULL
) WITH (fillfactor = 50);

CREATE INDEX drops_starts_at ON drops (starts_at DESC, id DESC);

-- The counters, one row per size. No index on a counter and room on each page keep updates heap-only.
CREATE TABLE drop_sizes (
    drop_id   uuid NOT NULL REFERENCES drops (id),
    size      text NOT NULL CHECK (size <> ''),
    position  integer NOT NULL,
    total     integer NOT NULL,
    available integer NOT NULL,
    held      integer NOT NULL,
    sold      integer NOT NULL,
    -- The low-water mark: pair numbers from here to `total` were never used.
    next_pair integer NOT NULL CHECK (next_pair BETWEEN 1 AND total + 1),
    PRIMARY KEY (drop_id, size),
    CONSTRAINT drop_sizes_stock_law
        CHECK (available >= 0 AND held >= 0 AND sold >= 0 AND available + held + sold = total)
) WITH (fillfactor = 50);
