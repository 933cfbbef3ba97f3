//! Who is signed in on this device, and the tokens that requests are sent with.
//!
//! Invariant (P9): a round sends under one person from beginning to end, whoever signs in meanwhile, and only what that
//! person's token may send. Tokens are asked for when they are needed and stand in no file.

use crate::client::Client;
use crate::environment::{BoxFuture, Shared};
use crate::transport::{Download, DownloadFrom, Request, Response, Streamed, Token, Transport, TransportError};
use gbsync_core::id::Actor;
use gbsync_core::mutant::{Mutant, is};
use gbsync_core::wire::Bearer;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Says with which token to send. Asked anew for every request: tokens are not part of the queue.
pub trait TokenProvider: Shared {
    /// The token, or `None` while there is none.
    fn token(&self) -> BoxFuture<'_, Option<String>>;

    /// Asked once when the server took this token for none: another one if there is, else `None`. Then the groups wait until
    /// somebody signs in. A provider that keeps its token gets a new one here.
    fn renewed(&self, refused: Option<&str>) -> BoxFuture<'_, Option<String>> {
        let _ = refused;
        self.token()
    }
}

/// A token that stays the same.
pub struct FixedToken(pub String);

impl TokenProvider for FixedToken {
    fn token(&self) -> BoxFuture<'_, Option<String>> {
        Box::pin(async { Some(self.0.clone()) })
    }
}

/// No token: for a transport that sends only while somebody is signed in.
pub struct NoToken;

impl TokenProvider for NoToken {
    fn token(&self) -> BoxFuture<'_, Option<String>> {
        Box::pin(async { None })
    }
}

/// Somebody who is signed in.
#[derive(Clone)]
pub(crate) struct Session {
    pub(crate) actor: Actor,
    tokens: Arc<dyn TokenProvider>,
}

impl Client {
    /// Signs a person in, instead of whoever is: operations are this person's from now on, unless they say otherwise, and
    /// rounds send this person's groups with tokens of `tokens`, and those of others for whom these tokens may act. What
    /// others sealed waits for them as `waiting_for_sign_in`; what does not depend on that goes on.
    ///
    /// Nothing of it is stored: a program that starts again signs its person in again.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # use gbsync_client::{Client, Config, FixedToken, Remote};
    /// # use gbsync_core::id::{Actor, SpaceId};
    /// # let remote = Remote { server: "https://sync.example.com".into(), space: SpaceId::new("shop").unwrap() };
    /// # let client = Client::create(Config::new(folder.path().join("till.db")), &remote)?;
    /// client.sign_in(Actor::new("cashier-7").unwrap(), std::sync::Arc::new(FixedToken("gbt_…".into())));
    /// let sealed = client.operation("receipt-create", "r-1", |op| op.upsert("receipts", "r-1", "{}"))?;
    /// client.sign_out();
    /// let kept = client.group(&sealed.group_id)?.unwrap();
    /// assert_eq!(kept.actor.unwrap().as_str(), "cashier-7");
    /// # Ok::<(), gbsync_client::Error>(())
    /// ```
    pub fn sign_in(&self, actor: Actor, tokens: Arc<dyn TokenProvider>) {
        self.set_session(Some(Session { actor, tokens }));
    }

    /// Signs out whoever is signed in. The outbox stays as it is: every group keeps its author and goes when that one is back.
    pub fn sign_out(&self) {
        self.set_session(None);
    }

    /// Who is signed in.
    pub fn signed_in(&self) -> Option<Actor> {
        self.session().map(|session| session.actor)
    }
}

/// Whose groups a round may send.
#[derive(Default)]
pub(crate) struct Senders {
    /// Who was signed in when the round began.
    signed_in: Option<Actor>,
    /// What the server said of the token.
    bearer: Option<Bearer>,
    /// For whom the server took nothing in this round.
    refused: BTreeSet<Actor>,
}

impl Senders {
    pub(crate) fn new(session: Option<&Session>) -> Self {
        Self { signed_in: session.map(|session| session.actor.clone()), ..Self::default() }
    }

    pub(crate) fn set_bearer(&mut self, bearer: Option<Bearer>) {
        self.bearer = bearer;
    }

    /// [`Mutant::SentUnderAnotherActor`]: the author that is sent.
    #[cfg(feature = "mutants")]
    pub(crate) fn planted_author(&self, author: Option<Actor>) -> Option<Actor> {
        let signed_in = self.signed_in.clone().filter(|_| is(Mutant::SentUnderAnotherActor) && author.is_some());
        signed_in.or(author)
    }

    pub(crate) fn refuse(&mut self, actor: Actor) {
        self.refused.insert(actor);
    }

    /// Whether a group of this author may go now. One that names nobody is of whoever sends it.
    pub(crate) fn may_send(&self, author: Option<&Actor>) -> bool {
        let Some(author) = author else { return true };
        if is(Mutant::SentWithAnyToken) || is(Mutant::SentUnderAnotherActor) {
            return true;
        }
        let is_signed_in = self.signed_in.as_ref().is_none_or(|signed_in| signed_in == author)
            || self.bearer.as_ref().is_some_and(|bearer| bearer.may_act_as(author));
        is_signed_in
            && self.bearer.as_ref().is_none_or(|bearer| bearer.may_send(Some(author)))
            && !self.refused.contains(author)
    }
}

/// A transport under one session: every request bears a token of it, and a refused one is asked for anew, once.
pub(crate) struct Signed<'t> {
    transport: &'t dyn Transport,
    session: Option<Session>,
}

impl<'t> Signed<'t> {
    pub(crate) fn new(transport: &'t dyn Transport, session: Option<Session>) -> Self {
        Self { transport, session }
    }
}

impl Transport for Signed<'_> {
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Response, TransportError>> {
        match &self.session {
            None => self.transport.send(request),
            Some(session) => {
                let tokens = session.tokens.as_ref();
                Box::pin(with_token(tokens, request, |request| self.transport.send(request), |response| response.status))
            }
        }
    }

    fn open(&self, request: Request) -> BoxFuture<'_, Result<Streamed, TransportError>> {
        match &self.session {
            None => self.transport.open(request),
            Some(session) => {
                let tokens = session.tokens.as_ref();
                Box::pin(with_token(tokens, request, |request| self.transport.open(request), |streamed| streamed.status))
            }
        }
    }

    fn download(&self, request: Request, from: DownloadFrom) -> BoxFuture<'_, Result<Option<Download>, TransportError>> {
        match &self.session {
            None => self.transport.download(request, from),
            Some(session) => {
                let download = move |request| self.transport.download(request, from.clone());
                Box::pin(with_token(session.tokens.as_ref(), request, download, status_of))
            }
        }
    }
}

/// The status of a download; none of a transport without any.
pub(crate) fn status_of(download: &Option<Download>) -> u16 {
    download.as_ref().map_or(0, |download| download.streamed.status)
}

/// A transport under whoever is signed in when a request is sent: for reading what everybody reads.
pub(crate) struct Current<'t> {
    pub(crate) client: &'t Client,
    pub(crate) transport: &'t dyn Transport,
}

impl Transport for Current<'_> {
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Response, TransportError>> {
        let signed = Signed::new(self.transport, self.client.session());
        Box::pin(async move { signed.send(request).await })
    }

    fn open(&self, request: Request) -> BoxFuture<'_, Result<Streamed, TransportError>> {
        let signed = Signed::new(self.transport, self.client.session());
        Box::pin(async move { signed.open(request).await })
    }

    fn download(&self, request: Request, from: DownloadFrom) -> BoxFuture<'_, Result<Option<Download>, TransportError>> {
        let signed = Signed::new(self.transport, self.client.session());
        Box::pin(async move { signed.download(request, from).await })
    }
}

/// Sends a request with a token, and where that is refused once more with another.
pub(crate) async fn with_token<'s, T>(
    tokens: &dyn TokenProvider,
    request: Request,
    send: impl Fn(Request) -> BoxFuture<'s, Result<T, TransportError>>,
    status: impl Fn(&T) -> u16,
) -> Result<T, TransportError> {
    let token = tokens.token().await;
    let answer = send(Request { token: token.clone().map(Token), ..request.clone() }).await?;
    if status(&answer) != 401 {
        return Ok(answer);
    }
    match tokens.renewed(token.as_deref()).await {
        Some(other) if token.as_ref() != Some(&other) => send(Request { token: Some(Token(other)), ..request }).await,
        _ => Ok(answer),
    }
}
