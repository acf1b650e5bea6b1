//! Errors as DynamoDB's clients see them: a type, a status, a text.

use crate::reply::write_string;

/// The type of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The request breaks a rule.
    Validation,
    /// The table does not exist.
    ResourceNotFound,
    /// The table does not exist, in the words of the operations on backups.
    TableNotFound,
    /// The table is being created or deleted, or exists already.
    ResourceInUse,
    /// The body is not the JSON expected.
    Serialization,
    /// The operation is not known.
    UnknownOperation,
    /// The condition of a write does not hold.
    ConditionalCheckFailed,
    /// The caller may not do this.
    AccessDenied,
    /// It is not known who the caller is; the type's name without its namespace.
    Authentication(&'static str),
    /// Our trouble; the outcome of a write may be unknown.
    InternalServerError,
    /// Our trouble for now; nothing was done.
    ServiceUnavailable,
}

impl ErrorKind {
    /// Namespace and name.
    fn full_name(self) -> (&'static str, &'static str) {
        const DYNAMODB: &str = "com.amazonaws.dynamodb.v20120810";
        const SERVICE: &str = "com.amazon.coral.service";
        match self {
            ErrorKind::Validation => ("com.amazon.coral.validate", "ValidationException"),
            ErrorKind::ResourceNotFound => (DYNAMODB, "ResourceNotFoundException"),
            ErrorKind::TableNotFound => (DYNAMODB, "TableNotFoundException"),
            ErrorKind::ResourceInUse => (DYNAMODB, "ResourceInUseException"),
            ErrorKind::Serialization => (SERVICE, "SerializationException"),
            ErrorKind::UnknownOperation => (SERVICE, "UnknownOperationException"),
            ErrorKind::ConditionalCheckFailed => (DYNAMODB, "ConditionalCheckFailedException"),
            ErrorKind::AccessDenied => (SERVICE, "AccessDeniedException"),
            ErrorKind::Authentication(name) => (SERVICE, name),
            ErrorKind::InternalServerError => (DYNAMODB, "InternalServerError"),
            ErrorKind::ServiceUnavailable => ("com.amazon.coral.availability", "ServiceUnavailableException"),
        }
    }

    /// The HTTP status.
    pub fn status(self) -> u16 {
        match self {
            ErrorKind::InternalServerError => 500,
            ErrorKind::ServiceUnavailable => 503,
            _ => 400,
        }
    }
}

/// An error answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind:?}: {message}")]
pub struct ApiError {
    /// Its type.
    pub kind: ErrorKind,
    /// Its text; may be empty.
    pub message: String,
    /// The item that is there, as JSON, for a condition that does not hold.
    pub item: Option<String>,
}

impl ApiError {
    /// An error of this type.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> ApiError {
        ApiError { kind, message: message.into(), item: None }
    }

    /// A ValidationException.
    pub fn validation(message: impl Into<String>) -> ApiError {
        ApiError::new(ErrorKind::Validation, message)
    }

    /// A validation error in the form in which the writes of single items tell theirs, but for values
    /// that are none at all.
    pub fn enveloped(mut self) -> ApiError {
        let bare = [
            "Supplied AttributeValue ",
            "may not be empty",
            "should not be empty",
            " detected: ",
            "contains invalid key",
            "Only DELETE action is allowed",
            "is not supported for the type",
        ];
        if self.kind == ErrorKind::Validation && !bare.iter().any(|text| self.message.contains(text)) {
            self.message.insert_str(0, "1 validation error detected: ");
        }
        self
    }

    /// A ValidationException about the values of parameters.
    pub fn invalid_values(message: impl std::fmt::Display) -> ApiError {
        ApiError::validation(format!("One or more parameter values were invalid: {message}"))
    }

    /// Refuses the first parameter that is there although it cannot be acted on yet.
    ///
    /// # Errors
    /// A ValidationException that names it.
    pub fn refuse(parameters: &[(&str, bool)]) -> Result<(), ApiError> {
        match parameters.iter().find(|(_, given)| *given) {
            Some((name, _)) => Err(ApiError::unsupported(name)),
            None => Ok(()),
        }
    }

    /// A ValidationException that names a parameter which is not there yet.
    pub fn unsupported(parameter: &str) -> ApiError {
        ApiError::validation(format!("The parameter {parameter} is not supported yet"))
    }

    /// The answer to a request for a table that does not exist.
    pub fn table_not_found() -> ApiError {
        ApiError::new(ErrorKind::ResourceNotFound, "Requested resource not found")
    }

    /// The HTTP status.
    pub fn status(&self) -> u16 {
        self.kind.status()
    }

    /// Writes the body of the answer.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"__type\":\"");
        let (namespace, name) = self.kind.full_name();
        for part in [namespace, "#", name, "\""] {
            out.extend_from_slice(part.as_bytes());
        }
        if !self.message.is_empty() {
            let name: &[u8] = match self.kind {
                ErrorKind::Serialization => b",\"Message\":",
                _ => b",\"message\":",
            };
            out.extend_from_slice(name);
            write_string(out, &self.message);
        }
        if let Some(item) = &self.item {
            out.extend_from_slice(b",\"Item\":");
            out.extend_from_slice(item.as_bytes());
        }
        out.push(b'}');
    }
}
