//! Ranges of SELinux contexts, `s0-s3:c0.c5,c7`, read as the agent reads them.

/// The range in its shortest form, or the agent's words.
pub(super) fn range(text: &str) -> Result<String, String> {
    let (levels, categories) = pair(text, ':')?;
    let (low, high) = pair(levels, '-')?;
    let low = sensitivity(low)?;
    let mut range = format!("s{low}");
    if let Some(high) = high {
        let high = sensitivity(high)?;
        if (high.len(), high) < (low.len(), low) {
            return Err(format!(
                "The deployment failed because of a problem with the SELinux range specified ({text}) for the context \
                 parameter in the permissions section of the application specification file. Make corrections in the \
                 permissions section of the AppSpec file, and then try again."
            ));
        }
        if high != low {
            range += &format!("-s{high}");
        }
    }
    if let Some(categories) = categories {
        range.push(':');
        range += &joined(&numbers(categories)?);
    }
    Ok(range)
}

/// Two parts where the separator stands, else one; none of them empty.
fn pair(text: &str, separator: char) -> Result<(&str, Option<&str>), String> {
    let (first, second) = match text.split_once(separator) {
        Some((first, second)) => (first, Some(second)),
        None => (text, None),
    };
    if first.is_empty() || second == Some("") {
        return Err(format!("invalid range part {text}"));
    }
    Ok((first, second))
}

/// The digits, without leading zeros.
fn sensitivity(text: &str) -> Result<&str, String> {
    let digits = text
        .strip_prefix('s')
        .filter(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
        .ok_or_else(|| format!("invalid sensitivity {text}"))?;
    let short = digits.trim_start_matches('0');
    Ok(if short.is_empty() { "0" } else { short })
}

fn category(text: &str) -> Result<u32, String> {
    text.strip_prefix('c')
        .filter(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
        .and_then(|digits| digits.trim_start_matches('0').parse().ok().or(zero(digits)))
        .filter(|number| *number <= 1023)
        .ok_or_else(|| format!("invalid category {text}"))
}

fn zero(digits: &str) -> Option<u32> {
    digits.bytes().all(|b| b == b'0').then_some(0)
}

fn numbers(text: &str) -> Result<Vec<u32>, String> {
    let mut found = Vec::new();
    // Ruby's split drops empty parts at the end.
    for part in text.trim_end_matches(',').split(',') {
        if part.is_empty() && text.trim_end_matches(',').is_empty() {
            break;
        }
        let (low, high) = if part.contains('.') {
            let (low, high) = pair(part, '.')?;
            let high = high.unwrap_or_default();
            let (from, to) = (category(low)?, category(high)?);
            if to < from {
                return Err(format!("invalid category range {low}.{high}"));
            }
            (from, to)
        } else {
            let number = category(part)?;
            (number, number)
        };
        // There are 1,024 categories: more than that hold a duplicate, and need not be kept.
        if found.len() <= 1024 {
            found.extend(low..=high);
        }
    }
    found.sort_unstable();
    let all = found.len();
    found.dedup();
    if found.len() < all {
        return Err("duplicate categories".to_owned());
    }
    Ok(found)
}

fn joined(numbers: &[u32]) -> String {
    numbers
        .chunk_by(|a, b| b - a == 1)
        .map(|run| match run {
            [one] => format!("c{one}"),
            run => format!("c{}.c{}", run[0], run[run.len() - 1]),
        })
        .collect::<Vec<_>>()
        .join(",")
}
