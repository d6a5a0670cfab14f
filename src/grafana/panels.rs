//! Runs the queries of the stored dashboard as a browser does: first the variables, then every
//! panel with the variables filled in.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Instant;

use futures_util::{StreamExt as _, stream};
use serde_json::{Map, json};
use tokio::sync::{Mutex, OnceCell};

use super::Grafana;
use super::dashboard_model::{DashboardModel, Target, Variable};
use super::field_names::KnownNames;
use super::health_query::HEALTH_QUERY;
use super::json::read;
use super::layout::{Panel, panels};
use super::panel_queries::{PanelContext, Prepared, built_in, repeats};
use super::queries::QueryFailure;
use super::time_range::{Calendar, Range};
use super::variables::{Dialect, Variables, refers};
use super::versions::Capability;
use crate::error::Result;
use crate::http::Body;
use crate::model::diagnosis::{
    OpenedDashboard, PanelAnswer, PanelContent, SourceFault, VariableAnswer, VariableContent,
};

/// The number of panels queried at the same time.
const AT_ONCE: usize = 6;

/// The number of points of queries, once they are answered.
type Points = OnceCell<Result<usize, QueryFailure>>;

/// Answers that several panels share.
#[derive(Default)]
struct Shared {
    names: KnownNames,
    /// By time range, data source and queries.
    points: Mutex<BTreeMap<String, Rc<Points>>>,
}

/// The result of the queries of a panel or a variable.
pub(super) struct Answered<T> {
    pub(super) content: T,
    /// The data source that failed, and its failure.
    pub(super) failure: Option<(String, QueryFailure)>,
}

impl<T> Answered<T> {
    pub(super) const fn well(content: T) -> Self {
        Self { content, failure: None }
    }
}

impl Grafana {
    /// Whether Grafana has its InfluxDB plugin; `None` if the account may not read that.
    ///
    /// # Errors
    /// If the server returns an error or does not answer.
    pub(crate) async fn has_plugin(&self) -> Result<Option<bool>> {
        let answer =
            self.send("look for the InfluxDB plugin", "GET", "/api/plugins/influxdb/settings", Body::Empty).await?;
        match answer.status {
            200 => Ok(Some(true)),
            404 => Ok(Some(false)),
            _ => Ok(None),
        }
    }

    /// Whether the data source finds a probe with this query.
    ///
    /// # Errors
    /// With Grafana's message if the query fails.
    pub(crate) async fn finds_probe(&self, source: &str, query: &str, now: i64) -> Result<bool> {
        let sources = self.data_sources().await?;
        let fields = [
            ("refId", json!("A")),
            ("rawQuery", json!(true)),
            ("resultFormat", json!("time_series")),
            ("query", json!(query)),
        ];
        let target: Map<_, _> = fields.map(|(name, value)| (name.to_string(), value)).into_iter().collect();
        let range = Range { from: now - 300_000, to: now };
        let points = self.count_points(&sources, range, source, vec![target]).await?;
        points.map(|points| points > 0).map_err(|why| self.answered("query the data source", 0, why.into_words()))
    }

    /// Opens the stored dashboard as a browser does; `None` if it does not exist.
    ///
    /// # Errors
    /// If the server returns an error or does not answer. Failed queries are part of the result.
    pub(crate) async fn open_dashboard(&self, uid: &str, now: i64) -> Result<Option<OpenedDashboard>> {
        let (Some(found), sources) = (self.dashboard(uid).await?, self.data_sources().await?) else { return Ok(None) };
        let dashboard: &DashboardModel = &read(found.content);
        let calendar = Calendar::of(dashboard, now, jiff::tz::TimeZone::system());
        let range = calendar.range(dashboard);
        let plugins = self.panel_plugins().await?;
        let context = &PanelContext { dashboard, sources: &sources, calendar, range, dialect: self.dialect(), plugins };
        let mut variables = built_in(dashboard, range);
        let mut answers = Vec::new();
        let mut waiting: Vec<&Variable> = dashboard.templating.list.iter().collect();
        // A variable that refers to another one is resolved after it; cyclic references are
        // resolved in order.
        while !waiting.is_empty() {
            let refers_to_another =
                |one: &Variable| waiting.iter().any(|other| other.name != one.name && refers(one, &other.name));
            let index = waiting.iter().position(|one| !refers_to_another(one)).unwrap_or(0);
            let variable = waiting.remove(index);
            let started = Instant::now();
            let answered = self.fill_variable(context, variable, &mut variables).await?;
            answers.extend(answered.map(|answered| (variable.name.clone(), answered, started.elapsed())));
        }
        let found: Vec<Panel<'_>> = panels(dashboard).into_iter().filter(|panel| context.concerns(panel)).collect();
        let (variables, shared) = (&variables, &Shared::default());
        let found = &found;
        let queried = stream::iter(0..found.len())
            .map(|index| async move {
                let started = Instant::now();
                self.query_panel(context, &found[index], variables, shared)
                    .await
                    .map(|answered| (answered, started.elapsed()))
            })
            .buffered(AT_ONCE);
        let queried = queried.collect::<Vec<_>>().await.into_iter().collect::<Result<Vec<_>>>()?;
        let failures = answers.iter().filter_map(|(_, answered, _)| answered.failure.as_ref());
        let failures = failures.chain(queried.iter().filter_map(|(answered, _)| answered.failure.as_ref()));
        let failing = self.failing_sources(context, failures).await?;
        let is_failing = |uid: &str| failing.iter().any(|fault| fault.uid == uid);
        let variables = answers.into_iter().map(|(name, Answered { content, failure }, time)| {
            let content = match failure {
                Some((uid, _)) if is_failing(&uid) => VariableContent::SourceFails,
                Some((_, QueryFailure::Transport(why))) => VariableContent::Unanswered(why),
                _ => content,
            };
            VariableAnswer { name, content, time }
        });
        let panels = queried.into_iter().zip(found).map(|((Answered { content, failure }, time), panel)| {
            let content = match failure {
                Some((uid, _)) if is_failing(&uid) => PanelContent::SourceFails,
                Some((_, QueryFailure::Transport(why))) => PanelContent::Unanswered(why),
                _ => content,
            };
            PanelAnswer { title: panel.model.title.clone(), shows_range: panel.shows_range(), content, time }
        });
        let (variables, panels) = (variables.collect(), panels.collect());
        Ok(Some(OpenedDashboard { range: (range.from, range.to), sources: failing, variables, panels }))
    }

    /// How this version's data source writes variables.
    fn dialect(&self) -> Dialect {
        if self.has(Capability::ServerSideQueries) { Dialect::ByUse } else { Dialect::ByKind }
    }

    /// The failing data sources among those with failed queries: those that do not answer the simplest query either. A
    /// data source that answers it works, however long it takes for an expensive panel.
    async fn failing_sources<'a>(
        &self,
        context: &PanelContext<'_>,
        failures: impl Iterator<Item = &'a (String, QueryFailure)>,
    ) -> Result<Vec<SourceFault>> {
        let mut by_source: BTreeMap<&str, &QueryFailure> = BTreeMap::new();
        for (uid, failure) in failures {
            let first = by_source.entry(uid).or_insert(failure);
            if matches!(failure, QueryFailure::Transport(_)) {
                *first = failure;
            }
        }
        let mut faults = Vec::new();
        for (uid, failure) in by_source {
            let Some(source) = context.sources.iter().find(|source| source.uid == uid) else { continue };
            let Err(simplest) = self.list_values(source, HEALTH_QUERY, context.range).await? else { continue };
            let why = match failure {
                QueryFailure::Transport(why) => why.clone(),
                QueryFailure::Rejected(_) => simplest.into_words(),
            };
            let (name, url) = (source.name.clone(), source.url.clone());
            faults.push(SourceFault { uid: uid.into(), name, url, why });
        }
        Ok(faults)
    }

    /// Queries a panel, once for each value of the variable it is repeated for.
    async fn query_panel(
        &self,
        context: &PanelContext<'_>,
        panel: &Panel<'_>,
        variables: &Variables,
        shared: &Shared,
    ) -> Result<Answered<PanelContent>> {
        let range = context.calendar.range_of_panel(context.dashboard, panel.model);
        let mut content = PanelContent::Empty;
        for variables in repeats(panel, variables) {
            let one = match context.prepare(panel, &variables) {
                Prepared::Settled(content) => Answered::well(content),
                Prepared::Send(queries, elsewhere) => {
                    self.run_queries(context, range, queries, elsewhere, shared).await?
                }
            };
            if one.failure.is_some() {
                return Ok(one);
            }
            content = match (content, one.content) {
                (PanelContent::Points(one), PanelContent::Points(more)) => PanelContent::Points(one + more),
                (PanelContent::Points(points), PanelContent::Empty) => PanelContent::Points(points),
                (_, other) => other,
            };
            if !matches!(content, PanelContent::Points(_) | PanelContent::Empty) {
                break;
            }
        }
        Ok(Answered::well(content))
    }

    async fn run_queries(
        &self,
        context: &PanelContext<'_>,
        range: Range,
        queries: BTreeMap<String, Vec<Target>>,
        elsewhere: Option<String>,
        shared: &Shared,
    ) -> Result<Answered<PanelContent>> {
        let mut points = 0;
        let is_sent = !queries.is_empty();
        for (uid, targets) in queries {
            let Some(found) = context.sources.iter().find(|source| source.uid == uid) else { continue };
            for target in &targets {
                if let Some(unknown) = self.unknown_field(found, &target.parts, range, &shared.names).await? {
                    return Ok(Answered::well(unknown));
                }
            }
            let targets: Vec<_> = targets.into_iter().map(|target| target.fields).collect();
            let key = json!([range.from, range.to, uid, targets]).to_string();
            let answer = Rc::clone(shared.points.lock().await.entry(key).or_default());
            match answer.get_or_try_init(|| self.count_points(context.sources, range, &uid, targets)).await? {
                Ok(found) => points += found,
                Err(why) => {
                    let content = PanelContent::Failed(why.clone().into_words());
                    return Ok(Answered { content, failure: Some((uid, why.clone())) });
                }
            }
        }
        Ok(Answered::well(match elsewhere {
            Some(elsewhere) if !is_sent => PanelContent::Elsewhere(elsewhere),
            _ if points > 0 => PanelContent::Points(points),
            _ => PanelContent::Empty,
        }))
    }
}
