//! A repeated ticket returns the first answer, also after a crash. Knows nothing of what the answers mean.
