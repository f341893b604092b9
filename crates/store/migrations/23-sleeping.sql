-- Since when an environment sleeps: its hosts are gone until somebody asks for it. NULL: it is awake.
ALTER TABLE environments ADD COLUMN asleep_at INTEGER;
