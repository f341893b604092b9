-- Why a bake cannot begin yet, for people.
ALTER TABLE bakes ADD COLUMN waits TEXT;
