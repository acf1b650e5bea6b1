//! Every message between client, router, node and peer: the only vocabulary that processes share.
//!
//! A message is an rkyv archive ([`message`]) in a checked [`frame`]. Requests and answers are told
//! apart by [`Kind`]; an answer that refuses is a [`Refusal`], whatever was asked. Bytes from outside
//! are validated before they are read, and read in place.
//!
//! This crate knows no socket: who sends what, and when, is decided elsewhere.

pub mod cutter;
pub mod frame;
pub mod message;
pub mod refusal;

pub use cutter::Cutter;
pub use frame::{
    BODY_BYTES_MAX, Frame, FrameError, FrameHeader, HEADER_BYTES, PROTOCOL_VERSION, PROTOCOL_VERSION_MIN,
};
pub use message::{DecodeError, Kind, Message, decode, encode};
pub use refusal::{Refusal, RefusalCode};
