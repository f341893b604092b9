//! Where in a JSON text a pointer points: line and column, both from 1.

/// Finds `pointer` in `text`, which must be JSON; what cannot be found is at its nearest ancestor.
pub fn locate(text: &str, pointer: &str) -> (u32, u32) {
    let mut scanner = Scanner {
        text: text.as_bytes(),
        at: 0,
    };
    scanner.blanks();
    let mut found = scanner.at;
    for token in pointer.split('/').skip(1).filter(|token| !token.is_empty()) {
        let token = token.replace("~1", "/").replace("~0", "~");
        match scanner.enter(&token) {
            Some(key) => found = key,
            None => break,
        }
    }
    place(text, found)
}

/// The line and column of a byte.
pub fn place(text: &str, at: usize) -> (u32, u32) {
    let before = &text[..text.floor_char_boundary(at)];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (
        u32::try_from(line).unwrap_or(u32::MAX),
        u32::try_from(column).unwrap_or(u32::MAX),
    )
}

struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
}

impl Scanner<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn blanks(&mut self) {
        while self.peek().is_some_and(|byte| byte.is_ascii_whitespace()) {
            self.at += 1;
        }
    }

    /// Moves to the value of the member or element `token`; returns where the member's key, or the element, starts.
    fn enter(&mut self, token: &str) -> Option<usize> {
        let open = self.peek()?;
        self.at += 1;
        let wanted: Option<usize> = token.parse().ok();
        for index in 0.. {
            self.blanks();
            let start = self.at;
            match (open, self.peek()?) {
                (b'{', b'"') => {
                    self.value();
                    let key = serde_json::from_slice::<String>(self.text.get(start..self.at)?).ok()?;
                    self.blanks();
                    self.at += 1;
                    self.blanks();
                    if key == token {
                        return Some(start);
                    }
                }
                (b'[', _) if wanted == Some(index) => return Some(start),
                (b'[', byte) if byte != b']' => {}
                _ => return None,
            }
            self.value();
            self.blanks();
            if self.peek()? != b',' {
                return None;
            }
            self.at += 1;
        }
        None
    }

    /// Skips a string, a scalar or a whole object or array.
    fn value(&mut self) {
        let mut depth = 0_usize;
        while let Some(byte) = self.peek() {
            match byte {
                b'"' => self.string(),
                b'{' | b'[' => {
                    depth += 1;
                    self.at += 1;
                }
                b'}' | b']' if depth > 0 => {
                    depth -= 1;
                    self.at += 1;
                }
                b'}' | b']' | b',' if depth == 0 => return,
                _ => {
                    self.at += 1;
                    continue;
                }
            }
            if depth == 0 {
                return;
            }
        }
    }

    fn string(&mut self) {
        self.at += 1;
        while let Some(byte) = self.peek() {
            self.at += if byte == b'\\' { 2 } else { 1 };
            if byte == b'"' {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_keys_and_elements() {
        let text = "{\n  \"a\": [1, {\"b\\\"/~\": 2}],\n  \"c\": {\"d\": true}\n}";
        for (pointer, want) in [
            ("/", (1, 1)),
            ("/a", (2, 3)),
            ("/a/1", (2, 12)),
            ("/a/1/b\"~1~0", (2, 13)),
            ("/c/d", (3, 9)),
            ("/c/nothing", (3, 3)),
            ("/nothing", (1, 1)),
        ] {
            assert_eq!(locate(text, pointer), want, "{pointer}");
        }
    }
}
