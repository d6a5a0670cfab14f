//! Looks for servers that run on this machine without an engine, and suggests how to use them. Requests carry no
//! credentials.

use std::net::Ipv4Addr;
use std::rc::Rc;

use futures_util::future::join_all;

use super::observe::health;
use crate::error::Result;
use crate::http::{Http, PROBE};
use crate::model::address::ServerUrl;
use crate::model::event::Listener;
use crate::model::invocation::Invocation;
use crate::model::native::{System, package};
use crate::model::observed::ServerResponse;
use crate::model::role::Role;
use crate::model::stack::{Service, Stack};
use crate::model::text::listed;

/// The server in one role, as a run without an engine finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NativeServer {
    pub(crate) role: Role,
    /// Its address.
    pub(crate) url: ServerUrl,
    pub(crate) answer: NativeAnswer,
}

/// The answer of a server at the usual address on loopback.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NativeAnswer {
    /// No request was sent, because a setting names the server.
    Named,
    /// No server answers.
    Silent,
    /// It can be used; its version.
    Usable(String),
    /// Another server answers; its description.
    Unusable(String),
}

/// Sends a request to loopback for each role that the stack does not assign to an external server.
///
/// # Errors
/// If no client can be created.
pub(crate) async fn native_servers(stack: &Stack, listener: &Rc<dyn Listener>) -> Result<Vec<NativeServer>> {
    join_all(Role::ALL.map(|role| native(stack, role, listener))).await.into_iter().collect()
}

async fn native(stack: &Stack, role: Role, listener: &Rc<dyn Listener>) -> Result<NativeServer> {
    let port = match stack.service(role) {
        Service::External { url } => return Ok(NativeServer { role, url: url.clone(), answer: NativeAnswer::Named }),
        Service::Container(spec) => spec.config.publish.port(),
    };
    let url = ServerUrl::http(Ipv4Addr::LOCALHOST.to_string(), port);
    let http = Http::new(role.name(), &url.to_string(), true, None, Rc::clone(listener))?;
    let (response, version) = health(role, http, PROBE).await;
    let answer = match response {
        ServerResponse::Refusing(_) if version.is_none() => {
            NativeAnswer::Unusable("a server that requires a login".into())
        }
        ServerResponse::Answering(()) | ServerResponse::Refusing(_) | ServerResponse::Failing(_) => {
            NativeAnswer::Usable(version.unwrap_or_default())
        }
        ServerResponse::Unusable(what) => NativeAnswer::Unusable(what),
        ServerResponse::Starting(why) => NativeAnswer::Unusable(format!("a server that is {why}")),
        ServerResponse::Silent(_) | ServerResponse::Unasked | ServerResponse::NotTheContainer => NativeAnswer::Silent,
    };
    Ok(NativeServer { role, url, answer })
}

impl NativeServer {
    fn describe(&self) -> String {
        let (title, url) = (self.role.title(), &self.url);
        match &self.answer {
            NativeAnswer::Named => format!("{title} is at {url}"),
            NativeAnswer::Usable(version) => format!("{title} {version} answers at {url}"),
            NativeAnswer::Silent => format!("no {title} answers at {url}"),
            NativeAnswer::Unusable(what) => format!("{what} answers at {url}"),
        }
    }

    const fn is_usable(&self) -> bool {
        matches!(self.answer, NativeAnswer::Named | NativeAnswer::Usable(_))
    }
}

/// Clipper's file of a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FileOfRun<'a> {
    /// The path, quoted for a shell.
    pub(crate) path: &'a str,
    pub(crate) has_metrics: bool,
    /// The roles whose servers it names.
    pub(crate) names: &'a [Role],
}

/// The hint if no engine answers: use the servers on this machine if both can be used, otherwise all
/// ways to continue if no engine is installed. `start` is the hint of the engine itself, and `install` the
/// command that installs one.
#[must_use]
pub(crate) fn native_hint(
    found: &[NativeServer],
    invocation: &Invocation,
    start: &str,
    install: Option<&str>,
    file: Option<FileOfRun<'_>>,
    system: System,
) -> String {
    let described = listed(&found.iter().map(NativeServer::describe).collect::<Vec<_>>());
    let typed = |url: &dyn Fn(&NativeServer) -> String| -> String {
        found.iter().map(|server| format!(" --{}-url {}", server.role, url(server))).collect()
    };
    if found.iter().all(NativeServer::is_usable) {
        let command = invocation.command(&format!("up{}", typed(&|server| server.url.to_string())));
        let is_new = |server: &&NativeServer| file.is_none_or(|file| !file.names.contains(&server.role));
        let lines: String =
            found.iter().filter(is_new).map(|server| format!("\n  {}_url = \"{}\"", server.role, server.url)).collect();
        let header = if file.is_some_and(|file| file.has_metrics) { "" } else { "\n  [metrics]" };
        let place = match file {
            None => "to Clipper's file, and pass that file with --config".to_string(),
            Some(FileOfRun { path, has_metrics: true, .. }) => format!("to the table [metrics] of {path}"),
            Some(FileOfRun { path, .. }) => format!("at the end of {path}"),
        };
        let otherwise = install.map_or(start.to_string(), |command| format!("install an engine: {command}"));
        return format!(
            "{described}; to use them without an engine: `{command}`\nevery command finds them after you add these \
             lines {place}:{header}{lines}\nto run containers instead: {otherwise}"
        );
    }
    let Some(install) = install else { return start.to_string() };
    let remote = invocation.command("up -H ssh://USER@HOST");
    let external = invocation.command(&format!("up{}", typed(&|_| "URL".into())));
    let missing: String = found
        .iter()
        .filter(|server| !server.is_usable())
        .map(|server| {
            let (name, how) = (server.role.facts().usable_version, package(server.role, system).installation);
            format!("\n     to install {name}: {how}")
        })
        .collect();
    format!(
        "there are three ways to continue:\n  1. install an engine: {install}\n  2. use an engine on another machine: \
         `{remote}`\n  3. use servers that already run: `{external}`\n     {described}{missing}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::invocation::{GivenOption, Scope};

    fn found(influxdb: NativeAnswer, grafana: NativeAnswer) -> [NativeServer; 2] {
        let server = |role: Role, answer| NativeServer { role, url: ServerUrl::http("127.0.0.1", role.port()), answer };
        [server(Role::Influxdb, influxdb), server(Role::Grafana, grafana)]
    }

    fn invocation() -> Invocation {
        let name =
            GivenOption { name: "name", typed: " --name a".into(), path: None, scope: Scope::Instance, commands: None };
        Invocation::new(vec![name], "")
    }

    #[test]
    fn two_usable_servers_give_the_command_and_the_lines_that_keep_it() {
        let both = found(NativeAnswer::Usable("1.8.10".into()), NativeAnswer::Usable("12.1.0".into()));
        let hint = |file| native_hint(&both, &invocation(), "start it", None, file, System::Linux);
        assert_eq!(
            hint(None),
            "InfluxDB 1.8.10 answers at http://127.0.0.1:8086 and Grafana 12.1.0 answers at http://127.0.0.1:3000; to \
             use them without an engine: `clipper-metrics up --influxdb-url http://127.0.0.1:8086 --grafana-url \
             http://127.0.0.1:3000 --name a`\nevery command finds them after you add these lines to Clipper's file, \
             and pass that file with --config:\n  [metrics]\n  influxdb_url = \"http://127.0.0.1:8086\"\n  \
             grafana_url = \"http://127.0.0.1:3000\"\nto run containers instead: start it"
        );
        let file = |has_metrics, names| Some(FileOfRun { path: "conf/a.toml", has_metrics, names });
        let [new, existing] = [false, true].map(|has_metrics| hint(file(has_metrics, &[])));
        assert!(new.contains("add these lines at the end of conf/a.toml:\n  [metrics]\n"), "{new}");
        let to_table = "add these lines to the table [metrics] of conf/a.toml:\n  influxdb_url";
        assert!(existing.contains(to_table) && !existing.contains("\n  [metrics]"), "{existing}");
        let named = hint(file(true, &[Role::Influxdb]));
        assert!(named.contains("of conf/a.toml:\n  grafana_url") && !named.contains("influxdb_url"), "{named}");
    }

    #[test]
    fn without_usable_servers_a_missing_engine_has_three_ways_and_a_stopped_one_its_start() {
        let other = found(
            NativeAnswer::Unusable("InfluxDB 2.7.1, which does not support Clipper's protocol,".into()),
            NativeAnswer::Silent,
        );
        let hint = |install, system| native_hint(&other, &invocation(), "start it", install, None, system);
        assert_eq!(hint(None, System::Linux), "start it");
        let text = hint(Some("`sudo apt-get install docker.io`"), System::MacOs);
        for words in [
            "1. install an engine: `sudo apt-get install docker.io`",
            "2. use an engine on another machine: `clipper-metrics up -H ssh://USER@HOST --name a`",
            "3. use servers that already run: `clipper-metrics up --influxdb-url URL --grafana-url URL --name a`",
            "InfluxDB 2.7.1, which does not support Clipper's protocol, answers at http://127.0.0.1:8086 and no Grafana answers at",
            "`brew install influxdb@1 && brew services start influxdb@1`",
            "`brew install grafana && brew services start grafana`",
        ] {
            assert!(text.contains(words), "{words}\n{text}");
        }
        assert!(text.lines().count() < 12, "{text}");
        assert!(hint(Some("x"), System::Linux).contains("`influxdb2` and `influxdb3-core` are other versions"));
    }
}
