//! Keys of who signed in in a browser (IAM Identity Center): the token that `aws sso login` left, renewed where it can be, and
//! the role that it gives.
//!
//! <https://docs.aws.amazon.com/sdkref/latest/guide/feature-sso-credentials.html>

use std::{
    fs,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use hyper::{Method, body::Bytes};
use jiff::{SignedDuration, Timestamp};
use model::Secret;
use serde_json::{Value, json};
use sha1::{Digest as _, Sha1};

use super::{Error, Keys, MARGIN, Machine};
use crate::{client::http, sign};

const PATIENCE: Duration = Duration::from_secs(20);

/// What a profile says of its sign-in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SignIn {
    pub profile: String,
    /// The session's name, or, in profiles without one, the address where people sign in: the token's file is called after it.
    pub name: String,
    pub region: String,
    pub account: String,
    pub role: String,
}

/// The keys of the role.
pub(super) async fn keys(machine: &Machine, own: &SignIn) -> Result<Keys, Error> {
    let token = token(machine, own).await?;
    let role = sign::encoded(&own.role, "");
    let account = sign::encoded(&own.account, "");
    let call = http::Call {
        method: Method::GET,
        target: format!("/federation/credentials?role_name={role}&account_id={account}"),
        headers: vec![("x-amz-sso_bearer_token".to_owned(), token.expose().to_owned())],
        body: Bytes::new(),
    };
    let answer = ask(machine, own, ("SSO", "portal.sso"), call).await?;
    let given = &answer["roleCredentials"];
    let text = |name: &str| {
        let text = given[name].as_str().filter(|text| !text.is_empty());
        text.ok_or_else(|| failed(format!("it says no {name}")))
    };
    Ok(Keys {
        id: text("accessKeyId")?.to_owned(),
        secret: Secret::new(text("secretAccessKey")?.to_owned()),
        token: Some(Secret::new(text("sessionToken")?.to_owned())),
        expires: given["expiration"]
            .as_i64()
            .and_then(|at| Timestamp::from_millisecond(at).ok()),
    })
}

/// The token of the sign-in. One that ends is renewed, and kept where every tool of AWS finds it.
async fn token(machine: &Machine, own: &SignIn) -> Result<Secret, Error> {
    let file = file(machine, own);
    let ended = || Error::Profile {
        profile: own.profile.clone(),
        why: format!(
            "is not signed in, or no more: aws sso login --profile {}",
            own.profile
        ),
    };
    let text = match fs::read(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(ended()),
        Err(source) => {
            let path = file.display().to_string();
            return Err(Error::File { path, source });
        }
    };
    // An error of the parser may quote what it read.
    let mut kept: Value = serde_json::from_slice(&text).map_err(|_| ended())?;
    let now = (machine.now)();
    let lasts = |name: &str, margin: SignedDuration| {
        let end = kept[name].as_str().and_then(|end| end.parse::<Timestamp>().ok());
        end.is_some_and(|end| now + margin < end)
    };
    if !lasts("expiresAt", MARGIN) {
        let is_known = ["clientId", "clientSecret", "refreshToken"]
            .iter()
            .all(|name| kept[*name].is_string());
        // What cannot be renewed is good until its end.
        let is_good = lasts("expiresAt", SignedDuration::ZERO);
        match is_known && lasts("registrationExpiresAt", MARGIN) {
            true => match renew(machine, own, &mut kept).await {
                Ok(is_rotated) => match keep(&file, &kept) {
                    // The one in the file renews nothing any more: every tool would be signed out, and nobody know why.
                    Err(source) if is_rotated => {
                        let path = file.display().to_string();
                        return Err(Error::File { path, source });
                    }
                    // Who cannot keep it renews it again.
                    _ => {}
                },
                Err(error) if !is_good => return Err(error),
                Err(_) => {}
            },
            false if !is_good => return Err(ended()),
            false => {}
        }
    }
    let token = kept["accessToken"].as_str().ok_or_else(ended)?;
    Ok(Secret::new(token.to_owned()))
}

/// Says whether what it was renewed by was renewed too.
async fn renew(machine: &Machine, own: &SignIn, kept: &mut Value) -> Result<bool, Error> {
    let body = json!({
        "grantType": "refresh_token", "clientId": kept["clientId"], "clientSecret": kept["clientSecret"],
        "refreshToken": kept["refreshToken"],
    });
    let call = http::Call {
        method: Method::POST,
        target: "/token".to_owned(),
        headers: vec![("content-type".to_owned(), "application/json".to_owned())],
        body: Bytes::from(body.to_string()),
    };
    let given = ask(machine, own, ("SSO_OIDC", "oidc"), call).await?;
    if given["accessToken"].as_str().is_none_or(str::is_empty) {
        return Err(failed("it says no accessToken".to_owned()));
    }
    let seconds = given["expiresIn"].as_i64().unwrap_or_default();
    let end = (machine.now)() + SignedDuration::from_secs(seconds.clamp(0, 86_400 * 90));
    kept["accessToken"] = given["accessToken"].clone();
    kept["expiresAt"] = end.strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into();
    let is_rotated = given["refreshToken"].is_string() && given["refreshToken"] != kept["refreshToken"];
    if is_rotated {
        kept["refreshToken"] = given["refreshToken"].clone();
    }
    Ok(is_rotated)
}

/// Whole or not at all, and for nobody else.
fn keep(file: &Path, kept: &Value) -> std::io::Result<()> {
    let beside = file.with_extension(format!("{}.new", std::process::id()));
    // Of a process of this number that was killed.
    let _ = fs::remove_file(&beside);
    let mut options = fs::OpenOptions::new();
    let mut new = options.write(true).create_new(true).mode(0o600).open(&beside)?;
    let done = new.write_all(kept.to_string().as_bytes());
    let done = done.and_then(|()| fs::rename(&beside, file));
    if done.is_err() {
        let _ = fs::remove_file(&beside);
    }
    done
}

/// Asks one of the two services. What refuses says that the sign-in has ended.
async fn ask(
    machine: &Machine,
    own: &SignIn,
    (variable, host): (&str, &str),
    mut call: http::Call,
) -> Result<Value, Error> {
    let end = match own.region.starts_with("cn-") {
        true => "amazonaws.com.cn",
        false => "amazonaws.com",
    };
    let address = machine.get(&format!("AWS_ENDPOINT_URL_{variable}"));
    let address = address.or_else(|| machine.get("AWS_ENDPOINT_URL"));
    let address = address.unwrap_or_else(|| format!("https://{host}.{}.{end}", own.region));
    let endpoint =
        http::Endpoint::parse(&address).ok_or_else(|| failed(format!("{address} is no address")))?;
    call.target = format!("{}{}", endpoint.prefix, call.target);
    let answer = http::exchange(&endpoint, call, PATIENCE).await.map_err(failed)?;
    let is_token = variable == "SSO_OIDC";
    match answer.status {
        200 => {
            serde_json::from_slice(&answer.body).map_err(|_| failed("what it says is not JSON".to_owned()))
        }
        // The service of tokens refuses one that has ended by 400 (`InvalidGrantException`), the other by 401.
        status if status == 401 || (status == 400 && is_token) => Err(Error::Profile {
            profile: own.profile.clone(),
            why: format!(
                "is not signed in any more: aws sso login --profile {}",
                own.profile
            ),
        }),
        403 if !is_token => Err(failed(format!(
            "who signed in may not be {} in the account {}",
            own.role, own.account
        ))),
        status => Err(failed(format!("it answers {status}"))),
    }
}

fn failed(why: String) -> Error {
    Error::Answer {
        from: "IAM Identity Center".to_owned(),
        why,
    }
}

fn file(machine: &Machine, own: &SignIn) -> PathBuf {
    let home = machine.get("HOME").unwrap_or_default();
    let name = hex::encode(Sha1::digest(own.name.as_bytes()));
    Path::new(&home)
        .join(".aws/sso/cache")
        .join(format!("{name}.json"))
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write as _,
        net::TcpListener,
        sync::{Arc, Mutex},
    };

    use super::*;

    /// What a service was asked: first lines and bodies.
    type Asked = Arc<Mutex<Vec<(String, String)>>>;

    /// Both services in one.
    fn service() -> (String, Asked) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let all = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let (first, body) = crate::fixtures::asked(&stream);
                let (status, text) = match first.split_whitespace().nth(1).unwrap_or_default() {
                    "/token" if body.windows(6).any(|own| own == b"\"none\"") => {
                        (200, r#"{"expiresIn":3600}"#)
                    }
                    "/token" => (
                        200,
                        r#"{"accessToken":"new","expiresIn":3600,"refreshToken":"r2"}"#,
                    ),
                    path if path.contains("account_id=111111111111") => (
                        200,
                        r#"{"roleCredentials":{"accessKeyId":"A","secretAccessKey":"S","sessionToken":"T","expiration":3600000}}"#,
                    ),
                    path if path.contains("account_id=2") => (403, "{}"),
                    _ => (401, "{}"),
                };
                let body = String::from_utf8(body).unwrap();
                all.lock().unwrap().push((first, body));
                let head = format!("HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length");
                let answer = format!("{head}: {}\r\n\r\n{text}", text.len());
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        (address, asked)
    }

    fn machine(home: &Path, address: &str) -> Machine {
        let (home, address) = (home.display().to_string(), address.to_owned());
        Machine {
            variable: Arc::new(move |name| match name {
                "HOME" => Some(home.clone()),
                "AWS_ENDPOINT_URL_SSO" | "AWS_ENDPOINT_URL_SSO_OIDC" => Some(address.clone()),
                _ => None,
            }),
            now: || Timestamp::UNIX_EPOCH,
            bits: || 0,
        }
    }

    fn sign_in(account: &str) -> SignIn {
        SignIn {
            profile: "ops".to_owned(),
            name: "agency".to_owned(),
            region: "eu-central-1".to_owned(),
            account: account.to_owned(),
            role: "Deploys & more".to_owned(),
        }
    }

    /// A token that ends at this time, with what renews it or without.
    fn home(name: &str, end: &str, more: &str) -> PathBuf {
        let home = std::env::temp_dir().join(format!("vend-sso-{name}-{}", std::process::id()));
        let cache = home.join(".aws/sso/cache");
        fs::create_dir_all(&cache).unwrap();
        // As `printf agency | sha1sum` says.
        let file = cache.join("8c886bd360b01796dd74b266d918618794a4ae0a.json");
        let text = format!(r#"{{"accessToken":"old","expiresAt":"{end}"{more},"startUrl":"https://x"}}"#);
        fs::write(file, text).unwrap();
        home
    }

    const RENEWS: &str = r#","clientId":"c","clientSecret":"cs","refreshToken":"r1","registrationExpiresAt":"1970-02-01T00:00:00Z""#;

    #[tokio::test]
    async fn who_signed_in_has_the_roles_keys() {
        let (address, asked) = service();
        let home = home("good", "1970-01-01T01:00:00Z", "");
        let keys = keys(&machine(&home, &address), &sign_in("111111111111"))
            .await
            .ok()
            .unwrap();
        assert_eq!((keys.id.as_str(), keys.secret.expose()), ("A", "S"));
        assert_eq!(keys.expires, "1970-01-01T01:00:00Z".parse().ok());
        let asked = asked.lock().unwrap();
        assert_eq!(asked.len(), 1, "a token that lasts is not renewed");
        assert!(
            asked[0].0.contains("role_name=Deploys%20%26%20more&"),
            "{asked:?}"
        );
        fs::remove_dir_all(home).unwrap();
    }

    #[tokio::test]
    async fn a_token_that_ends_is_renewed_and_kept() {
        let (address, asked) = service();
        let home = home("ends", "1970-01-01T00:04:00Z", RENEWS);
        keys(&machine(&home, &address), &sign_in("111111111111"))
            .await
            .ok()
            .unwrap();
        let asked = asked.lock().unwrap();
        assert!(
            asked[0].0.starts_with("POST /token") && asked[0].1.contains("\"r1\""),
            "{asked:?}"
        );
        let cache = home.join(".aws/sso/cache");
        let files: Vec<_> = fs::read_dir(&cache)
            .unwrap()
            .map(|own| own.unwrap().path())
            .collect();
        assert_eq!(files.len(), 1);
        let kept: Value = serde_json::from_slice(&fs::read(&files[0]).unwrap()).unwrap();
        let text = |name: &str| kept[name].as_str().unwrap().to_owned();
        assert_eq!(
            [
                text("accessToken"),
                text("refreshToken"),
                text("expiresAt"),
                text("startUrl")
            ],
            ["new", "r2", "1970-01-01T01:00:00Z", "https://x"]
        );
        fs::remove_dir_all(home).unwrap();
    }

    /// What cannot be renewed is good until its end, and an answer without a token spoils nothing that others read.
    #[tokio::test]
    async fn a_token_that_is_not_renewed_is_good_until_its_end() {
        let (address, _) = service();
        let none = RENEWS.replace("r1", "none");
        for (name, more) in [("alone", ""), ("unanswered", none.as_str())] {
            let home = home(name, "1970-01-01T00:04:00Z", more);
            let cache = home.join(".aws/sso/cache/8c886bd360b01796dd74b266d918618794a4ae0a.json");
            let before = fs::read(&cache).unwrap();
            let done = keys(&machine(&home, &address), &sign_in("111111111111")).await;
            assert!(done.is_ok(), "{name}: {:?}", done.err());
            assert_eq!(fs::read(&cache).unwrap(), before);
            fs::remove_dir_all(home).unwrap();
        }
    }

    #[tokio::test]
    async fn who_did_not_sign_in_or_no_more_is_told_how() {
        let (address, _) = service();
        let said = async |home: &Path, account: &str| {
            let done = keys(&machine(home, &address), &sign_in(account)).await;
            done.err().unwrap().to_string()
        };
        let nobody = Path::new("/nonexistent");
        assert!(said(nobody, "1").await.contains("aws sso login --profile ops"));
        let past = home("past", "1970-01-01T00:00:00Z", "");
        assert!(said(&past, "1").await.contains("aws sso login --profile ops"));
        let good = home("other", "1970-01-01T01:00:00Z", "");
        assert!(said(&good, "333333333333").await.contains("aws sso login"));
        let told = said(&good, "222222222222").await;
        assert!(
            told.contains("may not be Deploys & more in the account 222222222222"),
            "{told}"
        );
        for home in [past, good] {
            fs::remove_dir_all(home).unwrap();
        }
    }
}
