-- What an execution made is looked for by its name: what its scripts said, and whether it is to be kept.
CREATE INDEX deployments_of_execution ON deployments (execution);
CREATE INDEX releases_of_execution ON releases (execution);
