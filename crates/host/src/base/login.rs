//! The login in an address (RFC 3986, section 3.2.1).

/// What stands before the `@` of an address's host, and the address without it; `None` where nothing does.
pub(super) fn split(address: &str) -> Option<(&str, String)> {
    let (scheme, rest) = address.split_once("://")?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (login, host) = rest[..end].rsplit_once('@')?;
    Some((login, format!("{scheme}://{host}{}", &rest[end..])))
}

/// What is meant by a part of an address in which bytes may stand as `%` and two hexadecimal digits.
pub(super) fn decoded(part: &str) -> String {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.as_bytes();
    while let Some((first, more)) = rest.split_first() {
        let mut byte = [0];
        match more.get(..2) {
            Some(digits) if *first == b'%' && hex::decode_to_slice(digits, &mut byte).is_ok() => {
                bytes.push(byte[0]);
                rest = &more[2..];
            }
            _ => {
                bytes.push(*first);
                rest = more;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_are_taken_out_of_addresses() {
        let check = |address: &str, expected: Option<(&str, &str)>| {
            let found = split(address);
            let found = found.as_ref().map(|(login, rest)| (*login, rest.as_str()));
            assert_eq!(found, expected, "{address}");
        };
        check(
            "https://a:b@m.example:8/x@y",
            Some(("a:b", "https://m.example:8/x@y")),
        );
        check("http://a:b@c@m.example?q", Some(("a:b@c", "http://m.example?q")));
        check("http://token@m.example", Some(("token", "http://m.example")));
        check("http://m.example/a:b@c", None);
        check("m.example", None);
        for (written, meant) in [
            ("a%40b", "a@b"),
            ("50%", "50%"),
            ("%zz%4", "%zz%4"),
            ("%C3%A4", "ä"),
        ] {
            assert_eq!(decoded(written), meant);
        }
    }
}
