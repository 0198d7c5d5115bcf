-- A drop may want an admission for each pair that is reserved, such as a waiting room in front of it hands out.
ALTER TABLE drops ADD COLUMN admission_required boolean NOT NULL DEFAULT false;

-- An admission is good for one reservation, whatever becomes of it.
ALTER TABLE reservations ADD COLUMN admission_id text CHECK (admission_id <> '');
CREATE UNIQUE INDEX reservations_one_per_admission ON reservations (user_id, drop_id, admission_id)
    WHERE admission_id IS NOT NULL;
