//! Signatures and users, with real processes: who is let in, who is not, and in which words.

use bytes::Bytes;
use evenkeel_authentication::{AccessKey, sign};
use evenkeel_cluster_tests::http::Answer;
use evenkeel_cluster_tests::{Dev, Http, binary, data_directory};
use http_body_util::Full;
use hyper::{Request, StatusCode};
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const FOLLOWED_WITHIN: Duration = Duration::from_secs(30);

fn now_s() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970").as_secs() as i64
}

/// Runs `evenkeel user`; yields its standard output, or its standard error.
fn user(data: &Path, arguments: &[&str]) -> Result<Value, String> {
    let output = Command::new(binary::evenkeel())
        .args(["user", "-o", "json", "--cluster"])
        .arg(data.join("client.toml"))
        .args(arguments)
        .output()
        .expect("the binary starts");
    if output.status.success() {
        return Ok(serde_json::from_slice(&output.stdout).expect("JSON"));
    }
    Err(String::from_utf8_lossy(&output.stderr).into_owned())
}

fn access_key(made: &Value) -> AccessKey {
    let field = |name: &str| made[0][name].as_str().unwrap_or_else(|| panic!("{made}")).to_owned();
    AccessKey { id: field("AccessKeyId"), secret: field("SecretAccessKey").into() }
}

async fn list_tables(http: &mut Http, key: &AccessKey, token: Option<&str>, at_s: i64) -> Answer {
    let body = Bytes::from_static(b"{}");
    let (mut parts, ()) = Request::post("/")
        .header("host", "localhost")
        .header("content-type", "application/x-amz-json-1.0")
        .header("x-amz-target", "DynamoDB_20120810.ListTables")
        .body(())
        .expect("a well-formed request")
        .into_parts();
    sign(&mut parts, &body, key, token, "eu-west-1", at_s).expect("plain characters");
    http.request(Request::from_parts(parts, Full::new(body))).await.expect("an answer")
}

fn refused_as(answer: &Answer, name: &str) -> String {
    answer.check();
    let (error, message) = answer.error();
    assert_eq!((answer.status, error), (StatusCode::BAD_REQUEST, format!("com.amazon.coral.service#{name}")));
    message
}

/// Asks until the router has followed the catalogue.
async fn until(http: &mut Http, key: &AccessKey, token: Option<&str>, status: StatusCode) -> Answer {
    let began = Instant::now();
    loop {
        let answer = list_tables(http, key, token, now_s()).await;
        if answer.status == status {
            return answer;
        }
        assert!(began.elapsed() < FOLLOWED_WITHIN, "{}", answer.text());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn whoever_enforces_lets_in_users_and_nobody_else() {
    let directory = data_directory();
    let data = directory.path();
    let dev = Dev::try_start(data, &["--authentication", "enforce"]).unwrap();
    let http = &mut dev.http().await;
    let first = access_key(&user(data, &["create", "ann"]).unwrap());
    assert_eq!(until(http, &first, None, StatusCode::OK).await.text(), r#"{"TableNames":[]}"#);

    let unsigned = http.try_call("ListTables", &serde_json::json!({})).await.unwrap();
    refused_as(&unsigned, "MissingAuthenticationTokenException");
    let guessed = AccessKey { id: first.id.clone(), secret: "guess".to_owned().into() };
    refused_as(&list_tables(http, &guessed, None, now_s()).await, "InvalidSignatureException");
    refused_as(
        &list_tables(http, &AccessKey::generate(), None, now_s()).await,
        "UnrecognizedClientException",
    );
    let late =
        refused_as(&list_tables(http, &first, None, now_s() - 1000).await, "InvalidSignatureException");
    assert!(late.starts_with("Signature expired: "), "{late}");

    // A new key; the one before it stays good until the next change.
    let second = access_key(&user(data, &["rotate", "ann"]).unwrap());
    until(http, &second, None, StatusCode::OK).await;
    until(http, &first, None, StatusCode::OK).await;
    let third = access_key(&user(data, &["rotate", "ann", "--replace"]).unwrap());
    until(http, &third, None, StatusCode::OK).await;
    for ended in [&first, &second] {
        refused_as(&until(http, ended, None, StatusCode::BAD_REQUEST).await, "UnrecognizedClientException");
    }

    // A session ends with its user.
    let session = user(data, &["session", "ann", "--minutes", "5"]).unwrap();
    let (temporary, token) = (access_key(&session), session[0]["SessionToken"].as_str());
    until(http, &temporary, token, StatusCode::OK).await;
    refused_as(&list_tables(http, &temporary, None, now_s()).await, "UnrecognizedClientException");
    refused_as(&list_tables(http, &third, token, now_s()).await, "UnrecognizedClientException");
    user(data, &["delete", "ann"]).unwrap();
    refused_as(&until(http, &temporary, token, StatusCode::BAD_REQUEST).await, "UnrecognizedClientException");
    dev.kill();

    // Users outlive a crash, and `dev` prints the same access key again.
    let key_line =
        |said: &str| said.lines().find(|line| line.contains("AWS_ACCESS_KEY_ID")).map(str::to_owned);
    let bob = access_key(&{
        let dev = Dev::start(data);
        let made = user(data, &["create", "bob"]).unwrap();
        dev.kill();
        made
    });
    let dev = Dev::try_start(data, &["--authentication", "enforce"]).unwrap();
    until(&mut dev.http().await, &bob, None, StatusCode::OK).await;
    let listed = user(data, &["list"]).unwrap();
    let names: Vec<_> =
        listed.as_array().unwrap().iter().map(|line| line["UserName"].as_str().unwrap()).collect();
    assert_eq!(names, ["bob", "dev"]);
    let dev_key = listed[1]["AccessKeyId"].as_str().unwrap().to_owned();
    let said = dev.stop().said;
    assert!(key_line(&said).is_some_and(|line| line.contains(&dev_key)), "{said}");
    assert!(!said.contains(bob.secret.as_str()), "a secret is never logged");
}

#[tokio::test]
async fn whoever_warns_or_is_off_lets_everybody_in() {
    for mode in ["warn", "off"] {
        let directory = data_directory();
        let dev = Dev::try_start(directory.path(), &["--authentication", mode]).unwrap();
        let http = &mut dev.http().await;
        let stranger = AccessKey::generate();
        assert_eq!(list_tables(http, &stranger, None, now_s()).await.status, StatusCode::OK, "{mode}");
        http.call("ListTables", serde_json::json!({})).await;
        dev.stop();
    }
}

#[test]
fn what_is_wrong_with_users_and_key_files_is_told() {
    let directory = data_directory();
    let data = directory.path();
    let dev = Dev::start(data);
    user(data, &["create", "ann"]).unwrap();
    let cases: [(&[&str], &str); 6] = [
        (&["create", "ann"], "user ann exists already"),
        (&["create", "a b"], "a user's name has 1 to 64"),
        (&["delete", "bob"], "user bob does not exist"),
        (&["rotate", "bob"], "user bob does not exist"),
        (&["session", "bob"], "user bob does not exist"),
        (&["create", "eve", "--key-file", "/nowhere/key"], "key file /nowhere/key: No such file"),
    ];
    for (arguments, expected) in cases {
        let error = user(data, arguments).unwrap_err();
        assert!(error.contains(expected), "{arguments:?}: {error}");
    }
    dev.stop();
    std::fs::remove_file(data.join("users.key")).unwrap();
    let other = Dev::try_start(data, &[]);
    let said = match other {
        Ok(dev) => dev.stop().said,
        Err(exit) => exit.said,
    };
    assert!(said.contains("sealed with another key file"), "{said}");
}
