-- Who says of an alarm that it rings. It does while one of them says so.
CREATE TABLE alarm_rings (
    tenant_id INTEGER NOT NULL,
    name      TEXT NOT NULL,
    -- A group of Alertmanager's, or whoever tells by hand: a digest of what it is called.
    teller    BLOB NOT NULL,
    reason    TEXT,
    PRIMARY KEY (tenant_id, name, teller),
    FOREIGN KEY (tenant_id, name) REFERENCES alarms (tenant_id, name) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

CREATE INDEX alarm_rings_of ON alarm_rings (tenant_id, teller);

-- Those that ring already do until somebody says by hand that they are well: who said so was not kept.
INSERT INTO alarm_rings (tenant_id, name, teller, reason)
SELECT tenant_id, name, zeroblob(32), reason FROM alarms WHERE state = 'alarm';
