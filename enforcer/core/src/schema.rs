//! Schemas of values that are read from text by hand: what a definition in the API says of them. Owns how such a schema is
//! given; what it says stands beside the value.

/// Gives a type this schema, under its own name.
macro_rules! schema {
    ($kind:ident, $schema:tt) => {
        impl schemars::JsonSchema for $kind {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($kind).into()
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!($schema)
            }
        }
    };
}

pub(crate) use schema;
