//! A package index through `evenkeel import`: counted, read back equal, and again over a kill.

use evenkeel_cluster_tests::{Dev, Http, Random, binary, data_directory, native};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

/// The sort key, joined from two fields of a stanza.
const SORT_KEY: &str = "Version/Architecture";
/// Fewer stanzas than this are no package index of a Debian machine.
const DEBIAN_STANZAS_MIN: usize = 10_000;

/// The fields of one package.
type Stanza = BTreeMap<String, String>;
/// DynamoDB's JSON of the items by their keys.
type Items = BTreeMap<(String, String), Value>;

/// The machine's own package index, brought up to date first.
pub fn debian() -> Vec<Stanza> {
    let not_run = |what: &str| -> ! {
        println!("NOT RUN: {what}");
        panic!("NOT RUN: {what}");
    };
    let run = |program: &str, argument: &str| match Command::new(program).arg(argument).output() {
        Ok(output) if output.status.success() => output.stdout,
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            not_run(&format!("{program} {argument} failed: {said}"))
        }
        Err(error) => not_run(&format!("{program} cannot run: {error}")),
    };
    run("apt-get", "update");
    let stanzas = parse(&String::from_utf8_lossy(&run("apt-cache", "dumpavail")));
    if stanzas.len() < DEBIAN_STANZAS_MIN {
        not_run(&format!("apt-cache dumpavail knows {} packages only", stanzas.len()));
    }
    stanzas
}

/// Stanzas of "Field: value" lines, continued by lines that begin with a blank, as deb822(5) has them.
fn parse(text: &str) -> Vec<Stanza> {
    let mut stanzas = Vec::new();
    let mut stanza = Stanza::new();
    let mut last = String::new();
    for line in text.lines().chain([""]) {
        if line.is_empty() {
            stanzas.extend(Some(std::mem::take(&mut stanza)).filter(|stanza| !stanza.is_empty()));
        } else if line.starts_with([' ', '\t']) {
            let value = stanza.get_mut(&last).expect("a continuation follows a field");
            value.push('\n');
            value.push_str(line);
        } else if let Some((field, value)) = line.split_once(':') {
            last = field.to_owned();
            stanza.insert(last.clone(), value.trim().to_owned());
        }
    }
    for stanza in &mut stanzas {
        let field = |name: &str| stanza.get(name).unwrap_or_else(|| panic!("no {name}: {stanza:?}"));
        let joined = format!("{}/{}", field("Version"), field("Architecture"));
        stanza.insert(SORT_KEY.to_owned(), joined);
    }
    stanzas
}

/// An index like it, of made-up packages; some of them twice.
pub fn generated(count: usize, random: &mut Random) -> Vec<Stanza> {
    let mut text = String::new();
    for n in 0..count {
        let name = if n % 50 == 49 { n - 1 } else { n };
        let mut word = |letters: u64| {
            let letter = |_| char::from(b'a' + random.below(26) as u8);
            (0..1 + letters).map(letter).collect::<String>()
        };
        let (summary, depends) = (word(60), word(200));
        writeln!(
            text,
            "Package: package-{name}\nVersion: 1:{}.{}~rc1\nArchitecture: amd64",
            name % 7,
            name % 3
        )
        .and_then(|()| {
            writeln!(text, "Depends: {depends}\nDescription: {summary}\n {depends}\n .\n {summary}\n")
        })
        .expect("memory takes all");
    }
    parse(&text)
}

/// Imports, counts and compares; imports again into another table, kills the cluster meanwhile, and
/// compares what was acknowledged; then lets the import run to its end.
pub async fn import_and_kill(stanzas: Vec<Stanza>, random: &mut Random) {
    let directory = data_directory();
    let file = directory.path().join("packages.json");
    let lines: Vec<String> = stanzas.iter().map(|stanza| json!(stanza).to_string()).collect();
    std::fs::write(&file, lines.join("\n")).expect("a directory of our own");
    // Of two stanzas with one key the later one stays.
    let expected: Items = stanzas.iter().map(item).collect();
    println!("{} stanzas, {} packages", stanzas.len(), expected.len());

    let data = directory.path().join("data");
    let dev = Dev::start(&data);
    let output = import(&dev, "packages", &file, None).wait_with_output().expect("it is our child");
    print!("{}", String::from_utf8_lossy(&output.stdout));
    assert!(output.status.success(), "{output:?}");
    let http = &mut dev.http().await;
    assert_eq!(http.count("packages").await, expected.len() as u64);
    assert!(read(http, "packages").await == expected, "the packages read back equal");

    let list = directory.path().join("acknowledged");
    let again = import(&dev, "again", &file, Some(&list));
    let enough = random.below(expected.len() as u64 * 3 / 4);
    wait_for_items(&dev, "again", enough).await;
    println!("killed after {enough} items: {}", dev.kill().status);
    let acknowledged = acknowledged(&again.wait_with_output().expect("it is our child"), &list);

    let dev = Dev::start(&data);
    println!("ready after {:?}, {} lines were acknowledged", dev.ready_after(), acknowledged.len());
    let http = &mut dev.http().await;
    let found = read(http, "again").await;
    for line in acknowledged {
        let (key, _) = item(&stanzas[line - 1]);
        assert!(found.contains_key(&key), "line {line}, {key:?}, was acknowledged and is lost");
    }
    // Of a key with two lines either may be there; every item is one of them.
    let whole: Vec<(_, Value)> = stanzas.iter().map(item).collect();
    let whole: std::collections::BTreeSet<_> =
        whole.into_iter().map(|(key, item)| (key, item.to_string())).collect();
    for (key, item) in found {
        assert!(
            whole.contains(&(key.clone(), item.to_string())),
            "{key:?} is not what any line says: {item}"
        );
    }
    assert!(read(http, "packages").await == expected, "the first import is untouched");

    let output = import(&dev, "again", &file, None).wait_with_output().expect("it is our child");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(http.count("again").await, expected.len() as u64);
    assert!(read(http, "again").await == expected, "the rerun completes the table");
}

fn item(stanza: &Stanza) -> ((String, String), Value) {
    let typed = stanza.iter().map(|(name, value)| (name.clone(), json!({ "S": value })));
    ((stanza["Package"].clone(), stanza[SORT_KEY].clone()), Value::Object(typed.collect()))
}

fn import(dev: &Dev, table: &str, file: &Path, acknowledged: Option<&Path>) -> Child {
    let mut command = Command::new(binary::evenkeel());
    command.args([
        "import",
        "--table",
        table,
        "--create",
        "--partition-key",
        "Package",
        "--sort-key",
        SORT_KEY,
    ]);
    command.arg("--cluster").arg(dev.client_file()).arg(file);
    if let Some(list) = acknowledged {
        command.arg("--acknowledged").arg(list);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("the binary starts")
}

async fn read(http: &mut Http, table: &str) -> Items {
    let (items, _) = http.pages("Scan", json!({ "TableName": table })).await;
    let text = |item: &Value, name: &str| item[name]["S"].as_str().unwrap_or_default().to_owned();
    items.into_iter().map(|item| ((text(&item, "Package"), text(&item, SORT_KEY)), item)).collect()
}

/// Asks until the table has this many items.
async fn wait_for_items(dev: &Dev, table: &str, enough: u64) {
    let client = native::connect(&dev.client_file()).await;
    loop {
        // Until the import has made the table there is none.
        if let Ok(row) = client.describe_table(table).await
            && let Ok((items, _)) = client.table_counts(&row).await
            && items >= enough
        {
            return;
        }
    }
}

/// The line numbers that the import listed; as many as it said.
fn acknowledged(output: &Output, list: &Path) -> Vec<usize> {
    let listed = std::fs::read_to_string(list).expect("the import made it");
    let line = |place: &str| place.rsplit(':').next().and_then(|line| line.parse().ok());
    let lines: Vec<usize> = listed.lines().map(|place| line(place).expect("FILE:LINE")).collect();
    let said = String::from_utf8_lossy(&output.stderr);
    match output.status.code() {
        Some(0) => println!("the import had ended before the kill"),
        Some(1) => assert!(said.contains(&format!("{} items were acknowledged", lines.len())), "{said}"),
        _ => panic!("{output:?}"),
    }
    lines
}
