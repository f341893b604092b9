//! How the model's types stand in columns.

use std::{net::Ipv4Addr, str::FromStr};

use jiff::Timestamp;
use model::Digest;
use rusqlite::{
    Row, ToSql,
    types::{FromSqlError, ToSqlOutput, Type},
};
use serde::{Serialize, de::DeserializeOwned};

/// Microseconds since 1970.
pub(crate) struct At(pub Timestamp);

/// JSON text.
pub(crate) struct Json<'a, T>(pub &'a T);

/// A value that serde writes as a JSON string, without the quotes: an enum without data.
pub(crate) struct Word<T>(pub T);

/// 32 bytes.
pub(crate) struct Hash(pub Digest);

pub(crate) struct Address(pub Ipv4Addr);

/// A time as the database keeps it: in whole microseconds.
pub(crate) fn kept(at: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(at.as_microsecond()).expect("a time without its nanoseconds is a time")
}

impl ToSql for At {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.0.as_microsecond().into())
    }
}

impl<T: Serialize> ToSql for Json<'_, T> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        serde_json::to_string(self.0)
            .map(ToSqlOutput::from)
            .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
    }
}

impl<T: Serialize> ToSql for Word<T> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        match serde_json::to_value(&self.0) {
            Ok(serde_json::Value::String(word)) => Ok(word.into()),
            Ok(_) => Err(rusqlite::Error::ToSqlConversionFailure("not a word".into())),
            Err(error) => Err(rusqlite::Error::ToSqlConversionFailure(error.into())),
        }
    }
}

impl ToSql for Hash {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(self.0.as_bytes().as_slice().into()))
    }
}

impl ToSql for Address {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(u32::from(self.0).into())
    }
}

/// Columns as the model's types, by name.
pub(crate) trait Columns {
    fn at(&self, name: &str) -> rusqlite::Result<Timestamp>;
    fn maybe_at(&self, name: &str) -> rusqlite::Result<Option<Timestamp>>;
    fn json<T: DeserializeOwned>(&self, name: &str) -> rusqlite::Result<T>;
    fn maybe_json<T: DeserializeOwned>(&self, name: &str) -> rusqlite::Result<Option<T>>;
    fn word<T: DeserializeOwned>(&self, name: &str) -> rusqlite::Result<T>;
    fn parsed<T: FromStr<Err: std::error::Error + Send + Sync + 'static>>(
        &self,
        name: &str,
    ) -> rusqlite::Result<T>;
    fn maybe_parsed<T: FromStr<Err: std::error::Error + Send + Sync + 'static>>(
        &self,
        name: &str,
    ) -> rusqlite::Result<Option<T>>;
    fn digest(&self, name: &str) -> rusqlite::Result<Digest>;
    fn maybe_digest(&self, name: &str) -> rusqlite::Result<Option<Digest>>;
    fn address(&self, name: &str) -> rusqlite::Result<Ipv4Addr>;
}

impl Columns for Row<'_> {
    fn at(&self, name: &str) -> rusqlite::Result<Timestamp> {
        time(self.get(name)?)
    }

    fn maybe_at(&self, name: &str) -> rusqlite::Result<Option<Timestamp>> {
        self.get::<_, Option<i64>>(name)?.map(time).transpose()
    }

    fn json<T: DeserializeOwned>(&self, name: &str) -> rusqlite::Result<T> {
        serde_json::from_str(self.get_ref(name)?.as_str()?).map_err(unreadable)
    }

    fn maybe_json<T: DeserializeOwned>(&self, name: &str) -> rusqlite::Result<Option<T>> {
        let text = self.get_ref(name)?.as_str_or_null()?;
        text.map(|text| serde_json::from_str(text).map_err(unreadable))
            .transpose()
    }

    fn word<T: DeserializeOwned>(&self, name: &str) -> rusqlite::Result<T> {
        let word = serde_json::Value::String(self.get(name)?);
        serde_json::from_value(word).map_err(unreadable)
    }

    fn parsed<T: FromStr<Err: std::error::Error + Send + Sync + 'static>>(
        &self,
        name: &str,
    ) -> rusqlite::Result<T> {
        self.get_ref(name)?.as_str()?.parse().map_err(unreadable)
    }

    fn maybe_parsed<T: FromStr<Err: std::error::Error + Send + Sync + 'static>>(
        &self,
        name: &str,
    ) -> rusqlite::Result<Option<T>> {
        let text = self.get_ref(name)?.as_str_or_null()?;
        text.map(|text| text.parse().map_err(unreadable)).transpose()
    }

    fn digest(&self, name: &str) -> rusqlite::Result<Digest> {
        self.get(name).map(Digest::from_bytes)
    }

    fn maybe_digest(&self, name: &str) -> rusqlite::Result<Option<Digest>> {
        Ok(self.get::<_, Option<[u8; 32]>>(name)?.map(Digest::from_bytes))
    }

    fn address(&self, name: &str) -> rusqlite::Result<Ipv4Addr> {
        self.get::<_, u32>(name).map(Ipv4Addr::from)
    }
}

pub(crate) fn time(micros: i64) -> rusqlite::Result<Timestamp> {
    Timestamp::from_microsecond(micros).map_err(|_| FromSqlError::OutOfRange(micros).into())
}

fn unreadable(error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, Type::Text, Box::new(error))
}
