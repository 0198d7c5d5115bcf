ALTER TABLE reservations DROP COLUMN admission_id;
ALTER TABLE drops DROP COLUMN admission_required;
