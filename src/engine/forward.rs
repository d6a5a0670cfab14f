//! A port of this machine that leads to an address as a container sees it: what connects here is
//! connected from inside that container's network.
//!
//! A short-lived container of an image that is there joins the network and ends by itself if this run
//! does not remove it. Must not know what is sent.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bollard::container::LogOutput;
use bollard::exec::StartExecResults;
use bollard::models::{ContainerCreateBody, ExecConfig, HostConfig};
use bollard::query_parameters::{CreateContainerOptionsBuilder, StartContainerOptions};
use futures_util::StreamExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::transport::for_stream;
use super::{Docker, labels};
use crate::error::{Error, Refusal, Result, chain};
use crate::model::text::excerpt;

/// After this time, in seconds, the helper ends by itself.
const LIFETIME: &str = "120";
/// Joins its own streams with a connection; bash opens it without any other program. Where it cannot, it says why and
/// stays: Podman loses what a program says that ends at once.
const JOIN: &str = "exec 3<>\"/dev/tcp/$0/$1\" || exec cat >/dev/null; cat <&3 & exec cat >&3";

/// What bash names when it could not open a connection.
const OPENED: &str = "/dev/tcp/";

/// How an engine begins to say that a program cannot be run.
const NO_PROGRAM: &[u8] = b"OCI runtime exec failed";

/// What came of connections.
#[derive(Default)]
struct Said {
    /// What the last one that failed inside said.
    failure: String,
    /// Why none can be made at all.
    fault: Option<String>,
}

/// A forwarded address.
pub struct Forward {
    port: u16,
    /// What the helper said went wrong.
    said: Arc<Mutex<Said>>,
    accepting: JoinHandle<()>,
}

impl Forward {
    /// The port of loopback to connect to.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Why the last connection could not be made inside, if it could not.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        reason(&locked(&self.said).failure)
    }

    /// Why nothing can be asked this way, if nothing can.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        locked(&self.said).fault.clone()
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Docker {
    /// Forwards a port of loopback to `host` and `port` as the container sees them, through a container
    /// with the name `helper`, which [`Docker::remove_helper`] removes, also where this was interrupted.
    ///
    /// # Errors
    /// [`Error::Absent`] when the container does not run, [`Error::Docker`] when the engine refuses.
    pub async fn forward(
        &self,
        instance: &str,
        helper: &str,
        image: &str,
        container: &str,
        host: &str,
        port: u16,
    ) -> Result<Forward> {
        let absent = |state: &str| Error::Absent {
            what: format!("container {container} {state}"),
            hint: format!("`{}` lists the containers that run", self.endpoint.docker_command("ps")),
        };
        let doing = format!("inspect container {container}");
        let found = self.find_by_id(&doing, container).await?;
        let found = found.ok_or_else(|| absent("does not exist"))?;
        if found.state.and_then(|state| state.running) != Some(true) {
            return Err(absent("does not run"));
        }
        let id = found.id.unwrap_or_default();
        self.start_helper(instance, helper, image, &id).await?;
        let io = |source| Error::Io { doing: "listen on loopback".into(), source };
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.map_err(io)?;
        let local = listener.local_addr().map_err(io)?.port();
        let said = Arc::new(Mutex::new(Said::default()));
        let (client, target) = (self.client.clone(), (helper.to_string(), host.to_string(), port));
        let noted = Arc::clone(&said);
        let accepting = tokio::spawn(async move {
            loop {
                let (stream, _) = crate::backoff::accepted(|| listener.accept()).await;
                let (client, target, noted) = (client.clone(), target.clone(), Arc::clone(&noted));
                tokio::spawn(async move {
                    if let Err(why) = join(&client, &target, stream, &noted).await {
                        locked(&noted).fault = Some(excerpt(&chain(&why), 300));
                    }
                });
            }
        });
        Ok(Forward { port: local, said, accepting })
    }

    async fn start_helper(&self, instance: &str, name: &str, image: &str, network_of: &str) -> Result<()> {
        let body = ContainerCreateBody {
            image: Some(image.into()),
            entrypoint: Some(vec!["sleep".into(), LIFETIME.into()]),
            cmd: Some(Vec::new()),
            // The first process of a container ignores others, and Podman waits for it even where removal is forced.
            stop_signal: Some("SIGKILL".into()),
            labels: Some(labels::of_instance(instance)),
            host_config: Some(HostConfig {
                network_mode: Some(format!("container:{network_of}")),
                auto_remove: Some(true),
                cap_drop: Some(vec!["ALL".into()]),
                security_opt: Some(vec!["no-new-privileges".into()]),
                readonly_rootfs: Some(true),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        };
        let options = CreateContainerOptionsBuilder::default().name(name).build();
        let doing = "create the container that asks from inside that network";
        let id = self.call(doing, self.client.create_container(Some(options), body)).await?.id;
        self.call("start that container", self.client.start_container(&id, None::<StartContainerOptions>)).await
    }

    /// Removes the container of a forward; one that is gone, or never was, is fine.
    ///
    /// # Errors
    /// [`Error::Docker`] when the engine refuses.
    pub async fn remove_helper(&self, id: &str) -> Result<()> {
        match self.remove("remove that container", id, true).await {
            Err(Error::Docker { refusal: Refusal::Conflict, .. }) => Ok(()),
            result => result,
        }
    }
}

/// Joins a connection with one that is made inside.
async fn join(
    client: &bollard::Docker,
    (helper, host, port): &(String, String, u16),
    stream: TcpStream,
    said: &Mutex<Said>,
) -> Result<(), bollard::errors::Error> {
    let config = ExecConfig {
        attach_stdin: Some(true),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        cmd: Some(["bash", "-c", JOIN, host, &port.to_string()].map(String::from).to_vec()),
        ..ExecConfig::default()
    };
    locked(said).failure.clear();
    let exec = client.create_exec(helper, config).await?;
    let (client, bounded) = for_stream(client);
    let StartExecResults::Attached { output, mut input } = client.start_exec(&exec.id, None).await? else {
        return Ok(());
    };
    let mut output = bounded(output);
    let (mut from_here, mut to_here) = stream.into_split();
    let inwards = async move {
        let mut bytes = vec![0; 16 << 10];
        while let Ok(length @ 1..) = from_here.read(&mut bytes).await {
            if input.write_all(&bytes[..length]).await.is_err() || input.flush().await.is_err() {
                break;
            }
        }
        let _ = input.shutdown().await;
    };
    let outwards = async move {
        let mut failure = String::new();
        while let Some(Ok(part)) = output.next().await {
            match part {
                LogOutput::StdErr { message } => {
                    failure.push_str(&String::from_utf8_lossy(&message));
                    locked(said).failure.clone_from(&failure);
                    if failure.contains(OPENED) {
                        break;
                    }
                }
                // An engine says here that there is no such program, where a server's answer would be.
                LogOutput::StdOut { message } if message.starts_with(NO_PROGRAM) => {
                    locked(said).fault = Some(excerpt(&String::from_utf8_lossy(&message), 300));
                    break;
                }
                part => {
                    if to_here.write_all(&part.into_bytes()).await.is_err() {
                        break;
                    }
                }
            }
        }
    };
    // Once nothing more comes from inside, the connection is over.
    tokio::select! {
        () = outwards => {}
        () = async { inwards.await; std::future::pending().await } => {}
    }
    Ok(())
}

/// What was said before a panic elsewhere is as good.
fn locked(said: &Mutex<Said>) -> MutexGuard<'_, Said> {
    said.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why bash could not connect, by its own words: first why, then for what, after warnings of any kind.
fn reason(text: &str) -> Option<String> {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let named = lines.iter().position(|line| line.contains(OPENED)).unwrap_or(1);
    let why = lines.get(named.saturating_sub(1))?;
    Some(excerpt(why.rsplit(": ").next().unwrap_or(why), 120).to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_found_among_what_bash_says() {
        let refused =
            "127.0.0.1: connect: Connection refused\n127.0.0.1: line 1: /dev/tcp/127.0.0.1/1: Connection refused\n";
        let unknown =
            "nosuch: nosuch: Name or service not known\nnosuch: line 1: /dev/tcp/nosuch/1: Invalid argument\n";
        let warning = "bash: warning: setlocale: LC_ALL: cannot change locale (de_DE.UTF-8)\n";
        assert_eq!(reason(refused).as_deref(), Some("connection refused"));
        assert_eq!(reason(unknown).as_deref(), Some("name or service not known"));
        assert_eq!(reason(&format!("{warning}{refused}")).as_deref(), Some("connection refused"));
        assert_eq!(reason(""), None);
    }
}
