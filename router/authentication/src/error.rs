//! Why a request is not believed to be from whom it says, with the types and texts of AWS.

/// Why a request is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthenticationError {
    /// There is no signature.
    #[error("Request is missing Authentication Token")]
    Missing,
    /// A part of the signature is missing or cannot be read.
    #[error("{0}")]
    Incomplete(String),
    /// The signature is not one of this request, not of this time, or not for this service.
    #[error("{0}")]
    Invalid(String),
    /// Nobody has this access key.
    #[error("The security token included in the request is invalid.")]
    Unrecognized,
    /// The session is over.
    #[error("The security token included in the request is expired")]
    Expired,
}

impl AuthenticationError {
    /// The name of its type, without a namespace.
    pub fn type_name(&self) -> &'static str {
        match self {
            AuthenticationError::Missing => "MissingAuthenticationTokenException",
            AuthenticationError::Incomplete(_) => "IncompleteSignatureException",
            AuthenticationError::Invalid(_) => "InvalidSignatureException",
            AuthenticationError::Unrecognized => "UnrecognizedClientException",
            AuthenticationError::Expired => "ExpiredTokenException",
        }
    }
}
