//! The password of Grafana's administrator: kept, adopted, secured and reset.
//!
//! Knows in which order nothing is lost and no door is open. Must not know when it is needed: that
//! is the plan's.

use super::Systems;
use super::apply::spec;
use super::grafana::Grafana;
use super::http::Auth;
use crate::core::stack::{ContainerSpec, Password, Role, Secret, Stack};
use crate::error::{Error, Result};

impl Systems {
    /// A volume that was kept may hold a password; then the container's label must say so.
    pub(super) async fn adopt_password(&self, stack: &Stack, loopback: bool) -> Result<()> {
        let spec = spec(stack, Role::Grafana)?;
        if self.stored_password(&spec.name).await?.is_none() {
            return Ok(());
        }
        self.docker()?.remove_container(&stack.instance, &spec.name).await?;
        self.create(stack, spec, Password::File, loopback).await
    }

    pub(super) async fn ensure_password(&self, spec: &ContainerSpec) -> Result<()> {
        if self.stored_password(&spec.name).await?.is_some() {
            return Ok(());
        }
        let pending = match &self.credentials.grafana_password {
            Some(_) => None,
            None => self.docker()?.read_pending_password(&spec.name).await?,
        };
        let password = pending.map_or_else(|| self.given_or_new(), Ok)?;
        self.keep(spec, password).await
    }

    pub(super) async fn store_given_password(&self, spec: &ContainerSpec) -> Result<()> {
        let password = self.given_or_new()?;
        self.keep(spec, password).await
    }

    async fn keep(&self, spec: &ContainerSpec, password: Secret) -> Result<()> {
        self.docker()?.write_password(&spec.name, &password).await?;
        *self.stored_password.borrow_mut() = Some(password);
        Ok(())
    }

    fn given_or_new(&self) -> Result<Secret> {
        self.credentials.grafana_password.clone().map_or_else(generate, Ok)
    }

    /// Replaces the default password while Grafana is on loopback. The new one is noted before
    /// Grafana has it and kept after that, so that a crash in between loses nothing.
    pub(super) async fn secure_password(&self, stack: &Stack) -> Result<()> {
        let spec = spec(stack, Role::Grafana)?;
        let sign_in = |password: &Secret| -> Result<Grafana> {
            let auth = Auth::Basic(self.credentials.grafana_user.clone(), password.clone());
            Ok(Grafana::new(self.http(stack, Role::Grafana, auth)?))
        };
        let default = &self.credentials.default_password;
        let given = self.credentials.grafana_password.clone();
        let stored = self.stored_password(&spec.name).await?;
        let pending = self.docker()?.read_pending_password(&spec.name).await?;
        let mut candidates: Vec<&Secret> = [&given, &stored, &pending].into_iter().flatten().collect();
        candidates.retain(|candidate| *candidate != default);
        candidates.dedup();
        for candidate in candidates {
            match sign_in(candidate)?.try_to_sign_in().await {
                Ok(()) => return self.keep(spec, candidate.clone()).await,
                Err(Error::Refused { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let grafana = sign_in(default)?;
        grafana.try_to_sign_in().await?;
        let new = given.or(pending).filter(|secret| secret != default).map_or_else(generate, Ok)?;
        self.docker()?.write_pending_password(&spec.name, &new).await?;
        grafana.change_password(default, &new).await?;
        self.keep(spec, new).await
    }

    pub(super) async fn reset_password(&self, spec: &ContainerSpec) -> Result<()> {
        let new = self.given_or_new()?;
        self.docker()?.reset_password(&spec.name, &new).await?;
        self.forget(Role::Grafana);
        self.keep(spec, new).await
    }
}

/// A new password of 128 bits.
fn generate() -> Result<Secret> {
    let mut bytes = [0_u8; 16];
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut bytes).map_err(|_| Error::Io {
        doing: "generate a password".into(),
        source: std::io::Error::other("the system has no random numbers"),
    })?;
    Ok(Secret::new(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()))
}
