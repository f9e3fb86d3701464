//! What the messages of the public API look like, and how its methods are reached over plain HTTP: tables
//! written from `proto/*.proto` for whoever translates without knowing the types, such as the JSON gateway.
//!
//! The tables hold the methods that have a `google.api.http` annotation and every message that these take or
//! return. Fields stand in the order of their declaration, which is the order of JSON's members.

/// A message.
#[derive(Debug)]
pub struct Message {
    /// Its full name, such as `etcdserverpb.PutRequest`.
    pub name: &'static str,
    /// Its fields, in the order of their declaration.
    pub fields: &'static [Field],
}

/// A field of a message.
#[derive(Debug)]
pub struct Field {
    /// Its number on the wire.
    pub number: u32,
    /// Its name in the .proto file.
    pub name: &'static str,
    /// Its name in JSON's own style.
    pub json_name: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// Whether it may stand several times.
    pub repeated: bool,
    /// The full name of the choice that it is part of.
    pub oneof: Option<&'static str>,
}

/// What a field holds: those of protobuf's types that the API uses.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub enum Kind {
    Bool,
    Int32,
    Int64,
    Uint32,
    Uint64,
    String,
    Bytes,
    Enum(&'static Enum),
    Message(&'static Message),
}

/// An enumeration.
#[derive(Debug)]
pub struct Enum {
    /// Its full name.
    pub name: &'static str,
    /// Names and numbers, in the order of their declaration.
    pub values: &'static [(&'static str, i32)],
}

/// A method at one of its paths. All of them are called by POST, with the whole request as body.
#[derive(Debug)]
pub struct Route {
    /// The path over plain HTTP, such as `/v3/kv/put`.
    pub http: &'static str,
    /// The path in gRPC, such as `/etcdserverpb.KV/Put`.
    pub grpc: &'static str,
    /// What it takes.
    pub input: &'static Message,
    /// What it returns.
    pub output: &'static Message,
    /// Whether the client sends a stream of messages.
    pub client_streams: bool,
    /// Whether the server answers with a stream of messages.
    pub server_streams: bool,
}

impl Message {
    /// The field with this name, in JSON's style or in the .proto file's.
    pub fn field(&self, name: &str) -> Option<&'static Field> {
        let by_json_name = self.fields.iter().find(|field| field.json_name == name);
        by_json_name.or_else(|| self.fields.iter().find(|field| field.name == name))
    }
}

impl Enum {
    /// The number of a name.
    pub fn number(&self, name: &str) -> Option<i32> {
        self.values.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
    }

    /// The name of a number; the first if it has several.
    pub fn name(&self, number: i32) -> Option<&'static str> {
        self.values.iter().find(|(_, known)| *known == number).map(|(name, _)| *name)
    }
}

include!("generated/descriptors.rs");
