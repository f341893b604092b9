-- What was told of a push when it came, beside its commit: JSON. NULL where nobody told anything.
ALTER TABLE pushes ADD COLUMN event TEXT;
