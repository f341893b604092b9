-- What an image comes from that has no release yet: the commit that it was baked for, and its base as that commit's `vend.yaml`
-- names it. NULL: it was baked before this was kept.
ALTER TABLE bakes ADD COLUMN commit_json TEXT;
ALTER TABLE bakes ADD COLUMN base TEXT;
