//! What single people get of a flag set: the evaluator, and the bytes of each of its outcomes.
//!
//! However many people ask, a flag has few outcomes. So an outcome is rendered once, when somebody gets
//! it for the first time, and an answer is put together from such pieces without serialising anything
//! again.

use std::collections::HashSet;
use std::sync::OnceLock;

use super::flipper::Flipper;
use super::ofrep::Fault;
use super::set::View;
use super::{flagsmith, ofrep};
use crate::evaluation::{Context, Evaluation, Evaluator, Outcome, Subject};
use crate::model::{EnvironmentState, Flag, SegmentId, ValueType, Weight};

/// Bytes of a piece beside the head and the value: keys, variant, reason, metadata.
const PIECE_BYTES: usize = 256;

/// A piece of an answer.
type Piece = OnceLock<Box<str>>;

/// The evaluator of a revision with the bytes of its outcomes.
#[derive(Debug)]
pub struct Personal {
    evaluator: Evaluator,
    features: Vec<Shown>,
    /// By the number of the outcome.
    pieces: Vec<Pieces>,
    hides_disabled: bool,
    /// What OFREP's metadata say of whose flags they are, and of which revision.
    metadata: String,
    version: String,
}

/// A feature as doors need it.
#[derive(Debug)]
struct Shown {
    key: String,
    head: String,
    value_type: ValueType,
    server_key_only: bool,
    /// Whether it matters who somebody is.
    asks_who: bool,
    /// OFREP's words where there is no outcome: for somebody unnamed, and in a circle.
    nameless: Piece,
    circle: Piece,
}

/// Who asks for flags in OFREP's dialect.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    /// Whether it is told who that is.
    pub is_named: bool,
    /// What ends the metadata of each flag, braces included.
    pub tail: &'a str,
}

/// A flag in OFREP's words.
#[derive(Clone, Copy, Debug)]
pub struct Told<'a> {
    /// Up to the tail.
    pub text: &'a str,
    /// Whether it says why there is nothing to say.
    pub is_error: bool,
}

/// An outcome in each dialect, made at its first use.
#[derive(Debug, Default)]
struct Pieces {
    flagsmith: Piece,
    ofrep: Piece,
}

impl Personal {
    pub(super) fn new(state: &EnvironmentState, heads: Vec<String>) -> Self {
        let environment = &state.environment;
        let (client_key, revision) = (&environment.client_key, environment.stamp.revision);
        let evaluator = Evaluator::compile(Context::of(state));
        let asking = asking(state);
        let features = state.flags.iter().zip(heads).zip(asking).map(|((flag, head), asks_who)| {
            let feature = &flag.feature;
            Shown {
                key: feature.key.clone(),
                head,
                value_type: feature.value_type,
                server_key_only: feature.server_key_only,
                asks_who,
                nameless: OnceLock::new(),
                circle: OnceLock::new(),
            }
        });
        Self {
            features: features.collect(),
            pieces: evaluator.outcomes().iter().map(|_| Pieces::default()).collect(),
            evaluator,
            hides_disabled: environment.settings.hide_disabled_flags,
            metadata: format!("\"flagSetId\":\"{client_key}\""),
            version: format!(",\"version\":\"{revision}\""),
        }
    }

    /// What somebody gets of each flag.
    #[must_use]
    pub fn evaluate(&self, subject: &Subject<'_>) -> Evaluation {
        self.evaluator.evaluate(subject)
    }

    /// Writes Flagsmith's list of what somebody gets.
    pub fn write_flagsmith(&self, evaluation: &Evaluation, view: View, into: &mut Vec<u8>) {
        let shown = evaluation.outcomes.iter().filter_map(|number| self.flagsmith(*number, view));
        write_list(shown, "", into);
    }

    /// One flag of Flagsmith's list, by its key.
    #[must_use]
    pub fn flagsmith_flag(&self, evaluation: &Evaluation, view: View, key: &str) -> Option<&str> {
        let place = self.features.iter().position(|one| one.key.eq_ignore_ascii_case(key))?;
        self.flagsmith(*evaluation.outcomes.get(place)?, view)
    }

    /// Nothing for what this view does not show.
    fn flagsmith(&self, number: u32, view: View) -> Option<&str> {
        let (outcome, feature, pieces) = self.outcome(number)?;
        if feature.is_hidden(view) || (self.hides_disabled && !outcome.enabled) {
            return None;
        }
        let piece = pieces
            .flagsmith
            .get_or_init(|| flagsmith::outcome(&feature.head, outcome).into_boxed_str());
        Some(piece)
    }

    /// Writes OFREP's list of what somebody gets.
    pub fn write_ofrep(
        &self,
        evaluation: &Evaluation,
        view: View,
        asker: Asker<'_>,
        into: &mut Vec<u8>,
    ) {
        let places = 0..self.features.len();
        let shown = places.filter_map(|place| self.ofrep(evaluation, place, view, asker));
        write_list(shown.map(|told| told.text), asker.tail, into);
    }

    /// One flag of that list, by its key, without its tail.
    #[must_use]
    pub fn ofrep_flag(
        &self,
        evaluation: &Evaluation,
        view: View,
        asker: Asker<'_>,
        key: &str,
    ) -> Option<Told<'_>> {
        let place = self.features.iter().position(|one| one.key == key)?;
        self.ofrep(evaluation, place, view, asker)
    }

    fn ofrep<'a>(
        &'a self,
        evaluation: &Evaluation,
        place: usize,
        view: View,
        asker: Asker<'_>,
    ) -> Option<Told<'a>> {
        let number = *evaluation.outcomes.get(place)?;
        let (outcome, feature, pieces) = self.outcome(number)?;
        if feature.is_hidden(view) {
            return None;
        }
        let fault = |piece: &'a Piece, fault| {
            let text = || ofrep::fault(&feature.key, &self.metadata, fault).into_boxed_str();
            Some(Told { text: piece.get_or_init(text), is_error: true })
        };
        if feature.asks_who && !asker.is_named {
            return fault(&feature.nameless, Fault::Nameless);
        }
        if evaluation.circular.contains(&place) {
            return fault(&feature.circle, Fault::Circle);
        }
        let text = || {
            let kind = feature.value_type;
            ofrep::outcome(&feature.key, kind, &self.metadata, outcome).into_boxed_str()
        };
        Some(Told { text: pieces.ofrep.get_or_init(text), is_error: false })
    }

    fn outcome(&self, number: u32) -> Option<(&Outcome, &Shown, &Pieces)> {
        let place = number as usize;
        let outcome = self.evaluator.outcomes().get(place)?;
        Some((outcome, self.features.get(outcome.feature)?, self.pieces.get(place)?))
    }

    /// How many features there are.
    pub(super) fn features(&self) -> usize {
        self.features.len()
    }

    /// Flags as Flipper's gates can say them.
    pub(super) fn flipper(&self, view: View) -> Flipper {
        let audiences = self.evaluator.audiences();
        let features = self.features.iter().zip(&audiences);
        let shown = features.filter(|(feature, _)| !feature.is_hidden(view));
        let shown = shown.map(|(feature, audience)| (feature.key.as_str(), audience));
        Flipper::of(shown, view == View::Server)
    }

    /// What OFREP's metadata say of all flags, without braces and revision.
    #[must_use]
    pub fn metadata(&self) -> &str {
        &self.metadata
    }

    /// What they say of the revision, to follow what they say of a flag or of all. It is not with each
    /// flag of a list: providers would take every flag for a changed one.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Whether there is a feature with this key, in whatever case.
    #[must_use]
    pub fn knows(&self, key: &str) -> bool {
        self.features.iter().any(|feature| feature.key.eq_ignore_ascii_case(key))
    }

    /// Memory that it may come to hold, beside the evaluator.
    pub(super) fn weight(&self) -> usize {
        let piece = |outcome: &Outcome| {
            let head = self.features.get(outcome.feature).map_or(0, |shown| shown.head.len());
            head + 2 * outcome.value.size() + PIECE_BYTES
        };
        self.evaluator.outcomes().iter().map(piece).sum()
    }
}

impl Shown {
    fn is_hidden(&self, view: View) -> bool {
        self.server_key_only && view == View::Client
    }
}

/// Of each flag, whether it matters for it who somebody is.
fn asking(state: &EnvironmentState) -> Vec<bool> {
    let shares = |weights: &[Weight]| weights.iter().any(|weight| weight.thousandths() > 0);
    let asking = |flags_ask: bool| {
        let segments = state.segments.iter();
        let segments = segments.filter(|segment| ofrep::asks_who(segment, flags_ask));
        let segments: HashSet<SegmentId> = segments.map(|segment| segment.id).collect();
        let asks = move |flag: &Flag| {
            let mut overrides = flag.overrides.iter();
            shares(&flag.weights)
                || overrides.any(|over| shares(&over.weights) || segments.contains(&over.segment))
        };
        state.flags.iter().map(asks).collect::<Vec<_>>()
    };
    let directly = asking(false);
    if directly.contains(&true) { asking(true) } else { directly }
}

/// Writes a JSON list of pieces, each ended by `tail`.
fn write_list<'a>(pieces: impl Iterator<Item = &'a str>, tail: &str, into: &mut Vec<u8>) {
    into.push(b'[');
    for (number, piece) in pieces.enumerate() {
        if number > 0 {
            into.push(b',');
        }
        into.extend_from_slice(piece.as_bytes());
        into.extend_from_slice(tail.as_bytes());
    }
    into.push(b']');
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;
    use crate::flagset::flagsmith::heads;
    use crate::flagset::sample::{state, targeted};
    use crate::model::{Scalar, Traits};

    const UNNAMED: Asker<'_> = Asker { is_named: false, tail: "}}" };

    fn personal(state: &EnvironmentState) -> Personal {
        Personal::new(state, heads(state))
    }

    fn traits(pairs: &[(&str, &str)]) -> Traits {
        let text = |text: &str| Scalar::Text(text.to_owned());
        pairs.iter().map(|(key, value)| ((*key).to_owned(), text(value))).collect()
    }

    /// Flags by name, as Flagsmith's SDKs get them.
    fn flagsmith(personal: &Personal, who: &str, traits: &Traits, view: View) -> Json {
        let subject = Subject { identifier: Some(who), key: None, traits };
        let mut list = Vec::new();
        personal.write_flagsmith(&personal.evaluate(&subject), view, &mut list);
        let list: Vec<Json> = serde_json::from_slice(&list).unwrap();
        list.into_iter()
            .map(|flag| (flag["feature"]["name"].as_str().unwrap().to_owned(), flag))
            .collect::<serde_json::Map<_, _>>()
            .into()
    }

    /// The same in OFREP's words.
    fn ofrep(personal: &Personal, who: Option<&str>, traits: &Traits, view: View) -> Json {
        let subject = Subject { identifier: who, key: None, traits };
        let evaluation = personal.evaluate(&subject);
        let tail = who.map(|who| format!(",\"contextId\":\"{who}\"}}}}"));
        let asker = tail.as_deref().map_or(UNNAMED, |tail| Asker { is_named: true, tail });
        let mut list = Vec::new();
        personal.write_ofrep(&evaluation, view, asker, &mut list);
        let list: Vec<Json> = serde_json::from_slice(&list).unwrap();
        for flag in &list {
            let key = flag["key"].as_str().unwrap();
            let one = personal.ofrep_flag(&evaluation, view, asker, key).unwrap();
            let text = format!("{}{}", one.text, asker.tail);
            assert_eq!(serde_json::from_str::<Json>(&text).unwrap(), *flag);
            assert_eq!(one.is_error, flag.get("errorCode").is_some());
        }
        list.into_iter()
            .map(|flag| (flag["key"].as_str().unwrap().to_owned(), flag))
            .collect::<serde_json::Map<_, _>>()
            .into()
    }

    #[test]
    fn everybody_gets_their_own_of_the_shared_pieces() {
        let personal = personal(&targeted());
        let paying = traits(&[("plan", "pro"), ("mail", "ann@example.com")]);
        let banner = |who: &str, traits: &Traits| {
            let flags = flagsmith(&personal, who, traits, View::Client);
            flags["banner"]["feature_state_value"].as_str().unwrap().to_owned()
        };
        assert_eq!(banner("bob", &Traits::new()), "hello");
        assert_eq!(banner("bob", &paying), "thank you");
        assert_eq!(banner("ann", &paying), "only you");
        assert_eq!(banner("bob", &Traits::new()), "hello", "a piece does not change");
    }

    #[test]
    fn a_variant_is_named_and_the_rest_is_control() {
        let personal = personal(&targeted());
        let mut seen = std::collections::BTreeSet::new();
        for number in 0..200 {
            let who = format!("user-{number}");
            let flags = flagsmith(&personal, &who, &Traits::new(), View::Client);
            let (variant, value) = (
                flags["colour"]["variant"].clone(),
                flags["colour"]["feature_state_value"].clone(),
            );
            assert_eq!(flags["banner"]["variant"], Json::Null);
            let told = ofrep(&personal, Some(&who), &Traits::new(), View::Client);
            assert_eq!((&told["colour"]["variant"], &told["colour"]["value"]), (&variant, &value));
            assert_eq!(told["colour"]["reason"], "SPLIT");
            seen.insert((variant.as_str().unwrap().to_owned(), value.as_str().unwrap().to_owned()));
        }
        let pair = |variant: &str, value: &str| (variant.to_owned(), value.to_owned());
        assert_eq!(
            seen,
            [pair("blue", "#00f"), pair("control", "grey"), pair("red", "#f00")].into()
        );
    }

    #[test]
    fn ofrep_tells_which_rule_and_whom() {
        let personal = personal(&targeted());
        let paying = traits(&[("plan", "pro"), ("mail", "b")]);
        let told = ofrep(&personal, Some("bob"), &paying, View::Client);
        let metadata = json!({"flagSetId": "npfo95nMwUw8cjHXdHi2hG", "contextId": "bob"});
        let banner = json!({"key": "banner", "value": "thank you", "reason": "TARGETING_MATCH",
            "variant": "paying", "metadata": metadata});
        assert_eq!(told["banner"], banner);
        let told = ofrep(&personal, Some("ann"), &Traits::new(), View::Client);
        assert_eq!(
            (&told["banner"]["value"], &told["banner"]["variant"]),
            (&json!("only you"), &json!("identity"))
        );
        let told = ofrep(&personal, Some("bob"), &Traits::new(), View::Client);
        assert_eq!(told["banner"]["reason"], "DEFAULT", "segments target it, and none applies");
        assert_eq!(told["dark-mode"]["reason"], "STATIC");
    }

    /// What is known of somebody unnamed counts; only who they are cannot.
    #[test]
    fn somebody_unnamed_gets_what_does_not_depend_on_a_name() {
        let mut state = targeted();
        let percent = |text: &str| crate::model::Condition {
            property: String::new(),
            operator: crate::model::Operator::PercentageSplit,
            value: text.to_owned(),
        };
        let paying = traits(&[("plan", "pro"), ("mail", "b")]);
        let told = ofrep(&personal(&state), None, &paying, View::Client);
        assert_eq!(told["banner"]["value"], "thank you");
        assert_eq!(told["banner"]["metadata"].get("contextId"), None);
        assert_eq!(told["colour"]["errorCode"], "TARGETING_KEY_MISSING");
        assert_eq!(told["colour"].get("value"), None);
        // A share of all is one, too.
        state.segments[0].rules[0].conditions.push(percent("50"));
        let told = ofrep(&personal(&state), None, &paying, View::Client);
        assert_eq!(told["banner"]["errorCode"], "TARGETING_KEY_MISSING");
        assert_eq!(told["Limit"]["reason"], "DISABLED");
        // Without shares nobody is shared out.
        state.flags[2].weights = vec![Weight::default(); 2];
        let told = ofrep(&personal(&state), None, &paying, View::Client);
        assert_eq!(told["colour"]["value"], "grey");
    }

    #[test]
    fn what_another_flag_is_for_somebody_depends_on_who_that_is() {
        let mut state = targeted();
        let condition = &mut state.segments[0].rules[0].conditions[0];
        "$.flags.colour.variant".clone_into(&mut condition.property);
        let told = ofrep(&personal(&state), None, &Traits::new(), View::Client);
        assert_eq!(told["banner"]["errorCode"], "TARGETING_KEY_MISSING");
        state.flags[2].weights = vec![Weight::default(); 2];
        let told = ofrep(&personal(&state), None, &Traits::new(), View::Client);
        assert_eq!(told["banner"]["value"], "hello");
    }

    #[test]
    fn what_only_server_keys_may_see_is_in_no_answer_to_others() {
        let personal = personal(&targeted());
        let nothing = Traits::new();
        let evaluation =
            personal.evaluate(&Subject { identifier: Some("x"), key: None, traits: &nothing });
        for (view, is_seen) in [(View::Client, false), (View::Server, true)] {
            assert_eq!(flagsmith(&personal, "x", &nothing, view).get("secret").is_some(), is_seen);
            assert_eq!(
                ofrep(&personal, Some("x"), &nothing, view).get("secret").is_some(),
                is_seen
            );
            let single = personal.flagsmith_flag(&evaluation, view, "Secret");
            assert_eq!(single.is_some(), is_seen);
            let single = personal.ofrep_flag(&evaluation, view, UNNAMED, "secret");
            assert_eq!(single.is_some(), is_seen);
        }
        assert!(personal.ofrep_flag(&evaluation, View::Server, UNNAMED, "Secret").is_none());
        assert!(personal.knows("SECRET") && !personal.knows("nothing"));
    }

    /// What is off is hidden after evaluation: for some it may be on.
    #[test]
    fn what_is_off_for_somebody_is_hidden_from_them() {
        let mut state = targeted();
        state.environment.settings.hide_disabled_flags = true;
        state.flags[3].enabled = false;
        let personal = personal(&state);
        let paying = traits(&[("plan", "pro"), ("mail", "b")]);
        assert!(flagsmith(&personal, "bob", &Traits::new(), View::Server).get("banner").is_none());
        let flags = flagsmith(&personal, "bob", &paying, View::Client);
        assert!(flags.get("banner").is_some() && flags.get("Limit").is_none());
        let told = ofrep(&personal, Some("bob"), &Traits::new(), View::Client);
        assert_eq!(told["Limit"]["reason"], "DISABLED", "this dialect tells what is off");
    }

    #[test]
    fn no_flags_are_an_empty_list() {
        let mut state = state();
        state.flags.clear();
        let personal = personal(&state);
        assert_eq!(flagsmith(&personal, "x", &Traits::new(), View::Client), json!({}));
        assert_eq!(ofrep(&personal, None, &Traits::new(), View::Client), json!({}));
    }
}
