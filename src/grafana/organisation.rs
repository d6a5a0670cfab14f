//! Grafana's organisations: which one is used, and how every request names it.
//!
//! An account's active organisation is the last one that a user switched to, so requests never depend on it.

use std::time::Duration;

use serde::de::IgnoredAny;
use serde_json::json;

use super::json::lenient;
use super::{Grafana, path};
use crate::error::{Error, Result};
use crate::http::{Body, Request};
use crate::model::login::FormLogin;
use crate::model::observed::{ChosenOrganisation, OrganisationState};
use crate::model::stack::Secret;

/// How the organisation is chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Choice {
    /// The first one, without a request: Grafana is managed.
    First,
    /// The one that the token belongs to; no request may name another.
    OfToken,
    /// The first one if the account belongs to it, otherwise its only one.
    OfAccount,
}

lenient! {
    pub(super) struct Organisation {
        pub(super) id: Option<u64>,
        name: String,
    }

    /// An organisation in the list of an account's.
    pub(super) struct Membership {
        org_id: Option<u64>,
        name: String,
    }
}

impl Grafana {
    /// Uses the organisation with that name, or the default choice without a name, for all further requests.
    ///
    /// # Errors
    /// [`Error::Refused`] if the login is rejected, otherwise an error from the server.
    pub(crate) async fn enter(&mut self, name: Option<&str>) -> Result<OrganisationState> {
        (self.organisation, self.token_organisation) = (None, None);
        self.memberships.clear();
        match (name, &self.choice) {
            (Some(name), _) => self.enter_named(name).await,
            (None, Choice::First) => {
                self.organisation = Some(OrganisationState::FIRST);
                Ok(OrganisationState::Present)
            }
            (None, Choice::OfToken) => Ok(OrganisationState::Present),
            (None, Choice::OfAccount) => self.enter_own().await,
        }
    }

    /// The organisation that was entered, as far as its number is known.
    pub(super) fn entered(&self) -> Option<u64> {
        self.organisation.or(self.token_organisation)
    }

    async fn enter_named(&mut self, name: &str) -> Result<OrganisationState> {
        if self.choice == Choice::OfToken {
            let doing = "look up the token's organisation";
            let own: Organisation = self.get(doing, "/api/org").await?.unwrap_or_default();
            if own.name.is_empty() {
                return super::unreadable(self.odd(doing)).map(OrganisationState::Unreadable);
            }
            if own.name != name {
                return Ok(OrganisationState::OfToken(own.name));
            }
            self.token_organisation = own.id;
            return Ok(OrganisationState::Present);
        }
        let own = self.own_organisations().await?;
        if let Some(own) = own.iter().find(|own| own.name == name) {
            self.organisation = own.org_id;
            return Ok(OrganisationState::Present);
        }
        // The server's administrator may use any organisation; other accounts may not look it up.
        let place = path(&["api", "orgs", "name", name]);
        let found: Option<Organisation> = match self.get("look up the organisation", &place).await {
            Ok(found) => found,
            Err(error) => return super::unreadable(error).map(OrganisationState::Unreadable),
        };
        self.organisation = found.as_ref().and_then(|found| found.id);
        Ok(if found.is_some() { OrganisationState::Present } else { OrganisationState::Missing })
    }

    async fn enter_own(&mut self) -> Result<OrganisationState> {
        let own = self.own_organisations().await?;
        let chosen = match own.as_slice() {
            own if own.iter().any(|own| own.org_id == Some(OrganisationState::FIRST)) => Some(OrganisationState::FIRST),
            [only] => only.org_id,
            _ => None,
        };
        if chosen.is_none() {
            let names = own.into_iter().map(|own| own.name).filter(|name| !name.is_empty()).collect();
            return Ok(OrganisationState::Ambiguous(names));
        }
        (self.organisation, self.memberships) = (chosen, own);
        Ok(OrganisationState::Present)
    }

    /// The choice among several organisations of the account.
    pub(super) fn chosen(&self) -> Option<ChosenOrganisation> {
        let (own, others): (Vec<_>, Vec<_>) = self.memberships.iter().partition(|one| one.org_id == self.organisation);
        let name = own.first().filter(|_| !others.is_empty())?.name.clone();
        Some(ChosenOrganisation { name, others: others.into_iter().map(|other| other.name.clone()).collect() })
    }

    async fn own_organisations(&self) -> Result<Vec<Membership>> {
        self.get_list("list the account's organisations", "/api/user/orgs").await
    }

    /// Creates the organisation.
    ///
    /// # Errors
    /// [`Error::Raced`] if another process has created it, otherwise an error from the server.
    pub(crate) async fn create_organisation(&self, name: &str) -> Result<()> {
        let doing = "create the organisation";
        let answer = self.send(doing, "POST", "/api/orgs", Body::json(&json!({"name": name}))).await?;
        match answer.status {
            409 => Err(Error::Raced { doing: doing.into(), why: answer.message() }),
            _ => self.expect_success(doing, &answer),
        }
    }

    /// Signs in once.
    ///
    /// # Errors
    /// [`Error::Refused`] if the login is rejected.
    pub(crate) async fn try_to_sign_in(&self) -> Result<()> {
        let doing = "sign in";
        // With anonymous access, Grafana ignores a wrong password and answers most requests anyway;
        // this one requires a user. In Grafana 7, a token is not a user.
        let path = if self.choice == Choice::OfToken { "/api/org" } else { "/api/user" };
        self.get::<IgnoredAny>(doing, path).await?.map(drop).ok_or_else(|| self.odd(doing))
    }

    /// Whether Grafana may allow anonymous access, as far as its answer shows.
    pub(crate) async fn may_be_anonymous(&self, within: Duration) -> bool {
        let request = Request { within: Some(within), ..Request::new("GET", "/api/org") };
        let answer = self.http.anonymous().send(request).await;
        !answer.is_ok_and(|answer| matches!(answer.status, 401 | 403))
    }

    /// Tries a user and password in the login form.
    ///
    /// # Errors
    /// If the server does not answer, or neither accepts nor rejects them.
    pub(crate) async fn try_login_form(&self, user: &str, password: &Secret) -> Result<FormLogin> {
        let body = Body::json(&json!({"user": user, "password": password.reveal()}));
        let answer = self.http.anonymous().send(Request { body, ..Request::new("POST", "/login") }).await?;
        match answer.status {
            200 => Ok(FormLogin::Accepted),
            401 => Ok(FormLogin::Rejected),
            // Grafana 12 answers 400 if the form is switched off.
            400 | 403 | 404 => Ok(FormLogin::NotOffered),
            status => Err(self.answered("try the login form", status, answer.message())),
        }
    }
}
