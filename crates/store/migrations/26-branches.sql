-- Environments that come and go with their branches. All four are NULL for one that vend.yaml names itself.
-- What it was made from: a name in vend.yaml. It has the secrets of that name too.
ALTER TABLE environments ADD COLUMN preview TEXT;
-- It goes when nothing was asked for it for so many seconds.
ALTER TABLE environments ADD COLUMN expires_after INTEGER;
-- Why it is to go, and who says so. It is taken down until it is gone.
ALTER TABLE environments ADD COLUMN ending TEXT;
ALTER TABLE environments ADD COLUMN ending_by TEXT;

-- When something was last pushed to it.
CREATE INDEX pushes_of_environment ON pushes (app_id, environment, at);
