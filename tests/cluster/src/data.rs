//! Test data: random numbers from a seed, items of every type, and the JSON that stands for them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use evenkeel_model::{Attribute, AttributeValue, Attributes, Number};
use serde_json::{Map, Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

/// A sequence of numbers that a seed determines (splitmix64: Steele, Lea, Flood, OOPSLA 2014).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// From `EVENKEEL_SEED`, else drawn from the clock; the seed is printed.
    pub fn from_environment() -> Random {
        let seed = match std::env::var("EVENKEEL_SEED") {
            Ok(text) => text.parse().unwrap_or_else(|_| panic!("EVENKEEL_SEED={text} is no number")),
            Err(_) => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970");
                now.as_nanos() as u64 ^ u64::from(std::process::id()) << 40
            }
        };
        println!("seed={seed}");
        Random(seed)
    }

    /// From a known seed.
    pub fn from_seed(seed: u64) -> Random {
        Random(seed)
    }

    /// Any number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.draw() % end
    }

    /// Random bytes.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.draw() as u8).collect()
    }

    /// Random text, some of it outside ASCII and some of it to be escaped in JSON.
    pub fn text(&mut self, characters: usize) -> String {
        const LETTERS: [char; 16] =
            ['a', 'b', 'c', 'x', 'y', 'z', '0', '9', ' ', '"', '\\', '\n', 'ä', '€', '\u{1}', '😀'];
        (0..characters).map(|_| LETTERS[self.below(LETTERS.len() as u64) as usize]).collect()
    }

    /// A number of up to 38 digits.
    pub fn number(&mut self) -> Number {
        let digits: String =
            (0..1 + self.below(38)).map(|_| char::from(b'0' + self.below(10) as u8)).collect();
        let sign = if self.below(2) == 0 { "-" } else { "" };
        let exponent = self.below(160) as i64 - 110;
        Number::parse(&format!("{sign}{digits}e{exponent}")).unwrap_or(Number::ZERO)
    }
}

/// A value of each of the ten types, with what is easily lost: empty ones, escapes, 38 digits.
pub fn every_type() -> Vec<(&'static str, AttributeValue)> {
    use AttributeValue as Value;
    let number = |text: &str| Number::parse(text).expect("the numbers below are numbers");
    let entry = |name: &str, value| Attribute { name: name.to_owned(), value };
    vec![
        ("string", Value::S("Grüße \"\\\n\u{1}😀".into())),
        ("string_empty", Value::S(String::new())),
        ("number", Value::N(number("-1234567890123456789012345678901234567.8"))),
        ("number_least", Value::N(number("1e-130"))),
        ("number_greatest", Value::N(number("9.9999999999999999999999999999999999999e125"))),
        ("binary", Value::B((0..=255).collect())),
        ("binary_empty", Value::B(Vec::new())),
        ("yes", Value::Bool(true)),
        ("no", Value::Bool(false)),
        ("null", Value::Null),
        (
            "map",
            Value::M(vec![
                entry("empty", Value::M(vec![])),
                entry("list", Value::L(vec![Value::L(vec![]), Value::Null])),
            ]),
        ),
        ("list", Value::L(vec![Value::S("a".into()), Value::N(number("1")), Value::Bool(false)])),
        ("strings", Value::Ss(vec!["a".into(), "ä".into()])),
        ("numbers", Value::Ns(vec![number("-3.5"), number("0"), number("1e38")])),
        ("binaries", Value::Bs(vec![vec![0], vec![0, 1]])),
    ]
}

/// The key attributes and some others of random kinds.
pub fn random_item(partition: &str, sort: &str, random: &mut Random) -> Attributes {
    let mut attributes = vec![
        ("pk".to_owned(), AttributeValue::S(partition.to_owned())),
        ("sk".to_owned(), AttributeValue::S(sort.to_owned())),
    ];
    for index in 0..random.below(6) {
        let length = random.below(60) as usize;
        let value = match random.below(6) {
            0 => AttributeValue::N(random.number()),
            1 => AttributeValue::B(random.bytes(length)),
            2 => AttributeValue::L((0..length % 5).map(|_| AttributeValue::N(random.number())).collect()),
            3 => AttributeValue::Bool(length.is_multiple_of(2)),
            4 => AttributeValue::Null,
            _ => AttributeValue::S(random.text(length)),
        };
        attributes.push((format!("a{index}"), value));
    }
    attributes.into_iter().collect()
}

/// DynamoDB's JSON of an item.
pub fn typed(attributes: &Attributes) -> Value {
    typed_map(attributes.as_slice())
}

fn typed_map(attributes: &[Attribute]) -> Value {
    let entry = |attribute: &Attribute| (attribute.name.clone(), typed_value(&attribute.value));
    Value::Object(attributes.iter().map(entry).collect())
}

/// DynamoDB's JSON of a value.
pub fn typed_value(value: &AttributeValue) -> Value {
    let inner = match value {
        AttributeValue::S(text) => json!(text),
        AttributeValue::N(number) => json!(number.to_string()),
        AttributeValue::B(bytes) => json!(BASE64.encode(bytes)),
        AttributeValue::Bool(flag) => json!(flag),
        AttributeValue::Null => json!(true),
        AttributeValue::M(entries) => typed_map(entries),
        AttributeValue::L(elements) => elements.iter().map(typed_value).collect(),
        AttributeValue::Ss(texts) => json!(texts),
        AttributeValue::Ns(numbers) => numbers.iter().map(Number::to_string).collect(),
        AttributeValue::Bs(blobs) => blobs.iter().map(|blob| BASE64.encode(blob)).collect(),
    };
    let mut typed = Map::new();
    typed.insert(value.type_name().to_owned(), inner);
    Value::Object(typed)
}
