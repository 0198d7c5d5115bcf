-- People and their sign-ins. Rows of `users` are anonymised, never deleted: purchases name them.
CREATE TABLE users (
    id            uuid PRIMARY KEY,
    username      text NOT NULL,
    -- The username in its normal form: two names that look alike to a person are one name.
    username_key  text NOT NULL,
    -- Normalised before it is stored.
    email         text NOT NULL,
    password_hash text NOT NULL,
    role          text NOT NULL DEFAULT 'buyer' CHECK (role IN ('buyer', 'admin')),
    created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT users_username_key UNIQUE (username_key),
    CONSTRAINT users_email_key UNIQUE (email)
);

-- A session is one sign-in on one device: a family of refresh tokens of which one is good at a time.
-- Only hashes are kept. `previous_hash` is what the current token was derived from: shown again within
-- the grace it gets the same successor, later it is a theft and ends the session.
CREATE TABLE sessions (
    id            uuid PRIMARY KEY,
    user_id       uuid NOT NULL REFERENCES users (id),
    token_hash    bytea NOT NULL,
    previous_hash bytea,
    rotated_at    timestamptz NOT NULL,
    expires_at    timestamptz NOT NULL,
    created_at    timestamptz NOT NULL,
    ended_at      timestamptz,
    end_reason    text CHECK (end_reason IN ('logout', 'token_reused', 'role_changed')),
    CHECK ((ended_at IS NULL) = (end_reason IS NULL))
);

CREATE INDEX sessions_user_id ON sessions (user_id) WHERE ended_at IS NULL;
-- Each server asks every half second which sessions ended lately.
CREATE INDEX sessions_ended_at ON sessions (ended_at) WHERE ended_at IS NOT NULL;
