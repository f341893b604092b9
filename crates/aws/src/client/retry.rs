//! What is tried again, and after how long. Every call here may be repeated: what makes something carries a
//! token, or finds out by itself that it was done or is under way (a host's command does by a lock in the database).

use std::time::Duration;

/// Why a call was not answered as it should have been.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// AWS asks for patience.
    Throttled,
    /// Something between here and there, or there.
    Broken,
    /// It will not be better the next time.
    Final,
}

/// Tries in all, the first included.
const BROKEN: u32 = 4;
const THROTTLED: u32 = 9;
const FIRST: Duration = Duration::from_millis(250);
const MOST: Duration = Duration::from_secs(20);

/// What an error is, by its HTTP status and AWS's name of it.
pub fn why(status: u16, code: &str) -> Why {
    const THROTTLES: [&str; 14] = [
        "Throttling",
        "ThrottlingException",
        "ThrottledException",
        "RequestThrottled",
        "RequestThrottledException",
        "RequestLimitExceeded",
        "TooManyRequestsException",
        "BandwidthLimitExceeded",
        "LimitExceededException",
        "ProvisionedThroughputExceededException",
        "TransactionInProgressException",
        "PriorRequestNotComplete",
        "EC2ThrottledException",
        "SlowDown",
    ];
    const BREAKS: [&str; 4] = [
        "RequestTimeout",
        "RequestTimeoutException",
        "InternalError",
        "IDPCommunicationError",
    ];
    // Step Functions and KMS say so of a quota of things, not of calls; those come with 400 and no better next time.
    if status == 400 && code == "LimitExceededException" {
        return Why::Final;
    }
    match status {
        429 => Why::Throttled,
        _ if THROTTLES.contains(&code) => Why::Throttled,
        500 | 502 | 503 | 504 => Why::Broken,
        _ if BREAKS.contains(&code) => Why::Broken,
        _ => Why::Final,
    }
}

/// How long to wait after try `tries` (from 1), or None for no more. `bits` are random: all that were refused at the same
/// time must not come back at the same time.
pub fn pause(why: Why, tries: u32, bits: u64) -> Option<Duration> {
    let most = match why {
        Why::Throttled => THROTTLED,
        Why::Broken => BROKEN,
        Why::Final => 1,
    };
    if tries >= most {
        return None;
    }
    let ceiling = (FIRST * 2u32.pow(tries.min(16))).min(MOST);
    // Half of it for sure, so that throttling is never answered by a call at once.
    let half = ceiling / 2;
    let millis = half.as_millis() as u64;
    Some(half + Duration::from_millis(bits % (millis + 1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_apart() {
        assert_eq!(why(400, "Throttling"), Why::Throttled);
        assert_eq!(why(503, "SlowDown"), Why::Throttled);
        assert_eq!(why(503, ""), Why::Broken);
        assert_eq!(why(400, "ValidationError"), Why::Final);
        assert_eq!(why(400, "LimitExceededException"), Why::Final);
        assert_eq!(why(403, "AccessDenied"), Why::Final);
    }

    #[test]
    fn pauses_grow_to_an_end() {
        assert_eq!(pause(Why::Final, 1, 7), None);
        let pauses: Vec<Duration> = (1..)
            .map_while(|tries| pause(Why::Throttled, tries, u64::MAX))
            .collect();
        assert_eq!(pauses.len() as u32, THROTTLED - 1);
        assert!(pauses.iter().all(|pause| *pause <= MOST && *pause >= FIRST));
        assert!(pauses.windows(2).all(|pair| pair[1] >= pair[0] / 2));
        assert_eq!(pause(Why::Broken, BROKEN, 0), None);
    }
}
