//! What commands within a text complain about while a shell expands it.

use crate::{build::console::bounded, logs::Mask};

/// So much of it is read, in bytes without secrets, and so much of that is told, in characters.
const READ: usize = 1 << 16;
const TOLD: usize = 400;

/// It is shortened here, so secrets are taken out of it here: of one that is cut, nobody could tell later what it was.
pub(super) struct Complaint {
    mask: Mask,
    said: Vec<u8>,
}

impl Complaint {
    pub(super) fn new(mask: &Mask) -> Self {
        Self {
            mask: mask.clone(),
            said: Vec::new(),
        }
    }

    pub(super) fn hear(&mut self, bytes: &[u8]) {
        if self.said.len() < READ {
            self.said.extend(self.mask.feed(bytes));
        }
    }

    /// Empty when nobody complained.
    pub(super) fn told(mut self) -> String {
        if self.said.len() < READ {
            self.said.extend(self.mask.finish());
        }
        bounded(String::from_utf8_lossy(&self.said).trim().to_owned(), TOLD)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_cut_into_what_is_told() {
        let mask = Mask::new(["hunter2secret"]);
        let told = |pieces: &[&str]| {
            let mut complaint = Complaint::new(&mask);
            pieces.iter().for_each(|piece| complaint.hear(piece.as_bytes()));
            complaint.told()
        };
        assert_eq!(told(&[" \n"]), "");
        assert_eq!(
            told(&["proxy http://ann:hunt", "er2secret@proxy is away\n"]),
            "proxy http://ann:***@proxy is away"
        );
        for before in TOLD - 20..=TOLD {
            let text = format!("{}http://ann:hunter2secret@proxy", "0".repeat(before));
            let said = told(&[&text]);
            assert!(!said.contains("ann:h"), "{said}");
            assert!(said.chars().count() <= TOLD + 1, "{said}");
        }
        // However much comes before it.
        let piece = "hunter2secret".repeat(1000);
        let said = told(&[piece.as_str(); 30]);
        assert!(said.bytes().take(TOLD).all(|byte| byte == b'*'), "{said}");
    }
}
