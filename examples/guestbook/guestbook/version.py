"""What the page shows at its foot. Change it, push, and see it live."""

VERSION = "1.0"
