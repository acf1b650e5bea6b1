//! Decodes a body in one pass, and turns the decoder's complaints into DynamoDB's.
//!
//! A rule that is broken deep inside a value is raised through the decoder as a custom error whose text
//! begins with [`VALIDATION_MARK`]; everything else it complains of is a SerializationException.

use crate::error::{ApiError, ErrorKind};
use serde::de::DeserializeOwned;

/// Begins the text of a decoder's error that is a ValidationException.
pub(crate) const VALIDATION_MARK: char = '\u{E000}';

/// Decodes the body of a request.
///
/// # Errors
/// SerializationException for malformed JSON (without a text) and for values of the wrong JSON type,
/// ValidationException for attribute values that break a rule.
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|error| {
        let text = error.to_string();
        let text = text.rsplit_once(" at line ").map_or(text.as_str(), |(text, _)| text);
        if let Some(at) = text.find(VALIDATION_MARK) {
            return ApiError::validation(&text[at + VALIDATION_MARK.len_utf8()..]);
        }
        if text.starts_with("recursion limit") {
            return ApiError::validation("Nesting Levels have exceeded supported limits");
        }
        let message = if error.is_data() { conversion(text) } else { String::new() };
        ApiError::new(ErrorKind::Serialization, message)
    })
}

/// "invalid type: integer `5`, expected a string" in DynamoDB's words.
fn conversion(text: &str) -> String {
    // An array is taken for a structure by its length.
    if text.starts_with("invalid length") {
        return "Unrecognized collection type found where not expected".to_owned();
    }
    let Some((found, expected)) =
        text.strip_prefix("invalid type: ").and_then(|rest| rest.rsplit_once(", expected "))
    else {
        return text.to_owned();
    };
    let token = match found.split([' ', '`']).next().unwrap_or(found) {
        "map" => return "Start of structure or map found where not expected".to_owned(),
        "sequence" if expected.starts_with("a string") => {
            return "Unrecognized collection type class java.lang.String".to_owned();
        }
        "sequence" => return "Unrecognized collection type found where not expected".to_owned(),
        "integer" | "floating" => "NUMBER_VALUE",
        "boolean" if found.contains("true") => "TRUE_VALUE",
        "boolean" => "FALSE_VALUE",
        "null" => "NULL_VALUE",
        _ => "STRING_VALUE",
    };
    let wanted = match expected {
        "a boolean" if token == "STRING_VALUE" => return "Unexpected token received from parser".to_owned(),
        "a boolean" => "Boolean",
        "i64" | "u64" | "u32" | "i32" => "Integer",
        text if text.starts_with("a string") => "String",
        "an attribute value" => return "Unexpected value type in payload".to_owned(),
        _ => return "Unexpected field type".to_owned(),
    };
    format!("{token} cannot be converted to {wanted}")
}
