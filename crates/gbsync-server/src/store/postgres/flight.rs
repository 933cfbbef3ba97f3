//! Several statements on their way at once, so that a transaction costs a constant number of round trips.
//!
//! Invariant: statements arrive at PostgreSQL in the order in which they were added: each is sent when it is first polled, and
//! nothing polls one before those added earlier.

use crate::store::StoreError;
use deadpool_postgres::ClientWrapper;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row, Statement};

type Answer<'f> = Pin<Box<dyn Future<Output = Result<Vec<Row>, tokio_postgres::Error>> + Send + 'f>>;

/// Statements that are sent together.
pub(super) struct Flight<'f> {
    client: &'f Client,
    answers: Vec<Answer<'f>>,
}

/// Values of a statement.
pub(super) type Values<'f> = Vec<&'f (dyn ToSql + Sync)>;

impl<'f> Flight<'f> {
    pub(super) fn new(client: &'f Client) -> Self {
        Self { client, answers: Vec::new() }
    }

    /// Adds a statement; where its rows will be found.
    pub(super) fn add(&mut self, statement: &'f Statement, values: Values<'f>) -> usize {
        let client = self.client;
        self.answers.push(Box::pin(async move { client.query(statement, &values).await }));
        self.answers.len() - 1
    }

    /// Adds a text without values and without rows.
    pub(super) fn say(&mut self, text: &'f str) {
        let client = self.client;
        self.answers.push(Box::pin(async move { client.batch_execute(text).await.map(|()| Vec::new()) }));
    }

    /// Sends all of it; the rows of each, or the first error.
    pub(super) async fn land(self) -> Result<Vec<Vec<Row>>, StoreError> {
        let mut answers = self.answers;
        let mut rows: Vec<Option<Vec<Row>>> = answers.iter().map(|_| None).collect();
        poll_fn(move |context| {
            for (answer, rows) in answers.iter_mut().zip(&mut rows) {
                if rows.is_some() {
                    continue;
                }
                if let Poll::Ready(answered) = answer.as_mut().poll(context) {
                    match answered {
                        Ok(found) => *rows = Some(found),
                        Err(error) => return Poll::Ready(Err(StoreError::from(error))),
                    }
                }
            }
            if rows.iter().any(Option::is_none) {
                return Poll::Pending;
            }
            Poll::Ready(Ok(rows.iter_mut().filter_map(Option::take).collect()))
        })
        .await
    }
}

/// Statements with their values, until they are sent together. Each of one space has the space's number as its first value.
pub(super) struct Outgoing<'v> {
    space_no: i64,
    statements: Vec<(&'static str, Vec<Value<'v>>)>,
}

/// A value of a statement.
pub(super) type Value<'v> = Box<dyn ToSql + Sync + Send + 'v>;

impl<'v> Outgoing<'v> {
    pub(super) fn new() -> Self {
        Self { space_no: 0, statements: Vec::new() }
    }

    /// What is added from here on is of this space.
    pub(super) fn stand_in(&mut self, space_no: i64) {
        self.space_no = space_no;
    }

    /// Adds a statement with its values behind the space's number.
    pub(super) fn add(&mut self, sql: &'static str, values: Vec<Value<'v>>) {
        let space_no: Value<'v> = Box::new(self.space_no);
        self.add_to_all(sql, std::iter::once(space_no).chain(values).collect());
    }

    /// Adds a statement that is of no space alone.
    pub(super) fn add_to_all(&mut self, sql: &'static str, values: Vec<Value<'v>>) {
        self.statements.push((sql, values));
    }

    /// Sends all of them, and what ends the transaction where that is given.
    pub(super) async fn send(self, client: &ClientWrapper, end: Option<&str>) -> Result<(), StoreError> {
        let mut prepared = Vec::with_capacity(self.statements.len());
        for (sql, _) in &self.statements {
            prepared.push(client.prepare_cached(sql).await?);
        }
        let mut flight = Flight::new(client);
        for (statement, (_, values)) in prepared.iter().zip(&self.statements) {
            flight.add(statement, values.iter().map(|value| -> &(dyn ToSql + Sync) { value.as_ref() }).collect());
        }
        end.into_iter().for_each(|end| flight.say(end));
        flight.land().await?;
        Ok(())
    }
}
