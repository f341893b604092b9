//! Databases on hosts of their own. Knows how one engine is prepared and given its user; never what is stored in it.
