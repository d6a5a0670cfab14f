//! The table of settings, and the page that is generated from it.

use super::*;
use crate::settings::keys::{FileKey, Group, TABLE, from_environment};
use crate::settings::values::check;

#[test]
fn the_table_has_the_order_of_the_enum() {
    for (index, key) in TABLE.iter().enumerate() {
        assert_eq!(key.setting as usize, index, "{}", key.option);
        assert!(!key.option.is_empty() && !key.help.is_empty(), "{:?}", key.setting);
        assert!(key.secret_variable.is_none_or(|secret| key.help.contains(secret)), "{:?}", key.setting);
    }
    assert_eq!(Setting::Output as usize + 1, TABLE.len());
}

#[test]
fn only_these_settings_accept_any_text() {
    let any = TABLE.iter().filter(|key| check(key.setting, "\u{7f} any ?", key.option).is_ok());
    let files = [Setting::Config, Setting::CaFile, Setting::Dashboard, Setting::GrafanaPasswordFile];
    let secrets = [Setting::GrafanaTokenFile, Setting::InfluxdbPasswordFile];
    // Clap checks the output format.
    let names = [Setting::GrafanaOrg, Setting::GrafanaFolder, Setting::Output];
    let (any, mut expected): (Vec<&str>, _) =
        (any.map(|key| key.option).collect(), [&files[..], &secrets, &names].concat());
    expected.sort_by_key(|setting| *setting as usize);
    assert_eq!(any, expected.iter().map(|setting| setting.key().option).collect::<Vec<_>>());
}

/// The page in the repository. To change it with the table:
/// `UPDATE_SETTINGS=1 cargo test --lib keys`.
#[test]
fn the_page_of_settings_is_the_table() {
    let mut page = String::from(
        "# Settings\n\nThis page lists every setting with its option, environment variable and key in Clipper's file. It is \
         generated from `src/settings/keys.rs`.\n\nPrecedence: option, environment variable, Clipper's file, remembered \
         setting, default. An empty environment variable counts as unset. An empty option removes a remembered value, \
         as in `--grafana-url ''`.\n",
    );
    for group in [Group::Instance, Group::Influxdb, Group::Grafana, Group::Images, Group::Output] {
        page.push_str(&format!("\n## {}\n", group.title()));
        for key in TABLE.iter().filter(|key| key.group == group) {
            let short = key.short.map(|letter| format!("`-{letter}`, ")).unwrap_or_default();
            let value = match key.kind {
                ValueKind::Flag => format!("[={}]", key.value_name),
                _ => format!(" {}", key.value_name),
            };
            let details = if key.details.is_empty() { String::new() } else { format!(" {}.", key.details) };
            page.push_str(&format!("\n### {short}`--{}{value}`\n\n{}.{details}\n\n", key.option, key.help));
            let variables: Vec<String> = key.variables().map(|name| format!("`{name}`")).collect();
            page.push_str(&format!("* environment: {}\n", variables.join(", ")));
            let keys = match key.file {
                FileKey::Clipper(names, _) => Some(names.to_string()),
                FileKey::Metrics | FileKey::None => key.metrics_key().map(|name| format!("`{name}` in `[metrics]`")),
            };
            page.extend(keys.map(|keys| format!("* Clipper's file: {keys}\n")));
            if let ValueKind::Word(words) = key.kind {
                page.push_str(&format!("* values: {}\n", words.join(", ")));
            }
            if !key.default.is_empty() {
                page.push_str(&format!("* default: {}\n", key.default));
            }
            let quoted = |commands: &[&str]| commands.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>();
            let commands = key.commands.map_or_else(|| "all".into(), |commands| quoted(commands).join(", "));
            page.push_str(&format!("* commands: {commands}\n"));
            page.push_str(&format!("* {}\n", if key.remembered { "remembered" } else { "not remembered" }));
        }
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/settings.md");
    #[expect(clippy::disallowed_methods, reason = "a test that updates the page on request")]
    if std::env::var_os("UPDATE_SETTINGS").is_some() {
        std::fs::write(path, &page).unwrap();
    }
    assert_eq!(std::fs::read_to_string(path).unwrap(), page, "UPDATE_SETTINGS=1 cargo test --lib keys");
}

#[test]
fn an_empty_variable_is_none() {
    let values = from_environment(|name| (name == "CLIPPER_METRICS_PULL").then(String::new));
    assert!(values.is_empty());
}
