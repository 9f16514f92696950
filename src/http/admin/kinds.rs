//! What the OpenAPI document says of texts and numbers that have a rule of their own.
//!
//! A rule is stated where it is kept (`model::Key::PATTERN`, `NAME_MAX`); here it is put into the
//! terms of JSON Schema, once. A field names its kind by `#[schema(value_type = Name)]`, a query
//! parameter by `#[param(value_type = Option<Limit>, inline)]`. Nothing here has a value.

use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, Schema, SchemaType, Type};
use utoipa::openapi::{KnownFormat, RefOr, SchemaFormat};
use utoipa::{PartialSchema, ToSchema};

use super::webhooks::OVERLAP_SECONDS_MAX;
use crate::model;
use crate::rules::{
    DESCRIPTION_MAX, EVENT_MAX, EVENTS_MAX, HEADER_BYTES_MAX, HEADERS_MAX, NAME_MAX, TAG_MAX,
    TAGS_MAX, TRAIT_KEY_MAX,
};
use crate::store::PAGE_MAX;

/// One line: no control characters.
const LINE: &str = r"^[^\x00-\x1F\x7F-\x9F]*$";

/// One line that is not blank.
const NAME: &str = r"^[^\x00-\x1F\x7F-\x9F]*[^\s\x00-\x1F\x7F-\x9F][^\x00-\x1F\x7F-\x9F]*$";

/// Key of a project, an environment or a segment.
pub(super) enum Key {}

/// Key of a feature or a variant.
pub(super) enum FeatureKey {}

/// What people call something.
pub(super) enum Name {}

/// What something is for.
pub(super) enum Description {}

/// Labels for people.
pub(super) enum Tags {}

/// What a flag holds.
pub(super) enum FlagValue {}

/// How the texts of a feature are to be understood.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
#[expect(dead_code, reason = "it describes the model's types, which know nothing of HTTP")]
pub(super) enum ValueType {
    /// As they are.
    Plain,
    /// As JSON: an object or a number.
    Json,
}

/// What an endpoint is told.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
#[expect(dead_code, reason = "it describes the model's types, which know nothing of HTTP")]
pub(super) enum WebhookMode {
    /// The newest revision: changes while a delivery waits fold into it.
    State,
    /// Each change event, in order.
    Events,
}

/// In which words an endpoint is told.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
#[expect(dead_code, reason = "it describes the model's types, which know nothing of HTTP")]
pub(super) enum WebhookFormat {
    /// A Standard Webhooks payload.
    Flagcast,
    /// `FLAG_UPDATED` and `FLAG_DELETED`.
    Flagsmith,
}

/// How an endpoint does.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
#[expect(dead_code, reason = "it describes the model's types, which know nothing of HTTP")]
pub(super) enum WebhookStatus {
    /// The last attempt succeeded, or there was none yet.
    Healthy,
    /// Attempts fail; they are repeated.
    Failing,
    /// They did for two days: it is probed now and then, and comes back by itself.
    Failed,
    /// It answered 410: nothing is sent until somebody resumes it.
    Stopped,
    /// Somebody paused it.
    Paused,
}

/// What a delivery is about.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
#[expect(dead_code, reason = "it describes the model's types, which know nothing of HTTP")]
pub(super) enum DeliveryKind {
    /// The newest revision.
    State,
    /// One change event.
    Event,
    /// Somebody tries the endpoint.
    Test,
}

/// Where a delivery stands.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
#[expect(dead_code, reason = "it describes the model's types, which know nothing of HTTP")]
pub(super) enum DeliveryState {
    /// It is to be attempted.
    Pending,
    /// The endpoint confirmed it.
    Delivered,
    /// It was given up.
    Failed,
    /// Too many waited, and it was the oldest.
    Dropped,
}

/// Where the requests of an endpoint go.
pub(super) enum TargetUrl {}

/// Further headers of an endpoint's requests.
pub(super) enum TargetHeaders {}

/// Which actions an endpoint is told.
pub(super) enum EventFilters {}

/// What signs an endpoint's requests.
pub(super) enum WebhookSecret {}

/// How long an old secret signs beside the new one.
pub(super) enum OverlapSeconds {}

/// A percentage.
pub(super) enum Percent {}

/// What an app calls an identity.
pub(super) enum Identifier {}

/// What a trait holds; null takes it away.
pub(super) enum TraitValue {}

/// Traits by their names.
pub(super) enum Traits {}

/// Traits by their names, as the text of a JSON object.
pub(super) enum TraitsText {}

/// An instant, as RFC 3339 has it.
pub(super) enum Time {}

/// A day, UTC.
pub(super) enum Day {}

/// Seconds since the epoch.
pub(super) enum Seconds {}

/// Row number.
pub(super) enum Id {}

/// How many rows a page has at most.
pub(super) enum Limit {}

/// Where a list goes on, in the order of row numbers.
pub(super) enum Cursor {}

/// Where a list goes on, in the order of texts.
pub(super) enum TextCursor {}

fn text(about: &str) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String).description(Some(about))
}

fn integer(about: &str) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::Integer).description(Some(about))
}

fn done(schema: ObjectBuilder) -> RefOr<Schema> {
    RefOr::T(Schema::from(schema))
}

fn custom(format: &str) -> SchemaFormat {
    SchemaFormat::Custom(format.to_owned())
}

impl PartialSchema for Key {
    fn schema() -> RefOr<Schema> {
        let about = "Lower-case letters, digits, `-` and `_`, at most 100.";
        done(text(about).pattern(Some(model::Key::PATTERN)))
    }
}

impl ToSchema for Key {}

impl PartialSchema for FeatureKey {
    fn schema() -> RefOr<Schema> {
        let about = "Letters, digits, `-`, `_` and `.`, at most 100.";
        done(text(about).pattern(Some(model::FeatureKey::PATTERN)))
    }
}

impl ToSchema for FeatureKey {}

impl PartialSchema for Name {
    fn schema() -> RefOr<Schema> {
        let about = "What people call it: one line, not blank.";
        done(text(about).min_length(Some(1)).max_length(Some(NAME_MAX)).pattern(Some(NAME)))
    }
}

impl ToSchema for Name {}

impl PartialSchema for Description {
    fn schema() -> RefOr<Schema> {
        done(text("What it is for.").max_length(Some(DESCRIPTION_MAX)))
    }
}

impl ToSchema for Description {}

impl PartialSchema for Tags {
    fn schema() -> RefOr<Schema> {
        let tag = text("One line.").max_length(Some(TAG_MAX)).pattern(Some(LINE));
        let tags = ArrayBuilder::new().items(done(tag)).max_items(Some(TAGS_MAX));
        RefOr::T(Schema::from(tags.description(Some("Labels for people."))))
    }
}

impl ToSchema for Tags {}

impl PartialSchema for FlagValue {
    fn schema() -> RefOr<Schema> {
        let about = "Null, a boolean, a whole number that JavaScript holds exactly, or a string of \
            at most `limits.value_bytes` bytes.";
        let types = vec![Type::Null, Type::Boolean, Type::Integer, Type::String];
        let bound = model::INTEGER_MAX;
        done(
            ObjectBuilder::new()
                .schema_type(SchemaType::Array(types))
                .minimum(Some(-bound))
                .maximum(Some(bound))
                .description(Some(about)),
        )
    }
}

impl ToSchema for FlagValue {}

impl PartialSchema for TargetUrl {
    fn schema() -> RefOr<Schema> {
        let about = "`https://` or `http://`, an address of the open internet or one that \
            `webhook.allowed_targets` allows; no login, no fragment.";
        let url = text(about).min_length(Some(1)).max_length(Some(model::TARGET_URL_MAX));
        done(url.format(Some(custom("target-url"))))
    }
}

impl ToSchema for TargetUrl {}

impl PartialSchema for TargetHeaders {
    fn schema() -> RefOr<Schema> {
        let about = "Name of a header. Those that Flagcast sets are refused.";
        let value = text("Printable ASCII.").pattern(Some("^[ -~]*$"));
        let value = value.max_length(Some(HEADER_BYTES_MAX));
        let headers = ObjectBuilder::new().schema_type(Type::Object);
        let name = text(about).format(Some(custom("target-header")));
        let headers = headers.property_names(Some(done(name))).max_properties(Some(HEADERS_MAX));
        done(headers.additional_properties(Some(done(value))))
    }
}

impl ToSchema for TargetHeaders {}

impl PartialSchema for EventFilters {
    fn schema() -> RefOr<Schema> {
        let filter = text("An action, `flag.updated`, or all of a kind, `flag.*`.");
        let filter = filter.max_length(Some(EVENT_MAX)).pattern(Some(r"^[a-z_]+\.([a-z_]+|\*)$"));
        let filters = ArrayBuilder::new().items(done(filter)).max_items(Some(EVENTS_MAX));
        RefOr::T(Schema::from(filters.description(Some("None: all."))))
    }
}

impl ToSchema for EventFilters {}

impl PartialSchema for WebhookSecret {
    fn schema() -> RefOr<Schema> {
        let about = "`whsec_` and the base64 of 24 to 64 bytes.";
        done(text(about).format(Some(custom("webhook-secret"))))
    }
}

impl ToSchema for WebhookSecret {}

impl PartialSchema for OverlapSeconds {
    fn schema() -> RefOr<Schema> {
        let number = integer("Seconds; a day if absent.");
        done(number.minimum(Some(0)).maximum(Some(OVERLAP_SECONDS_MAX)))
    }
}

impl ToSchema for OverlapSeconds {}

impl PartialSchema for Percent {
    fn schema() -> RefOr<Schema> {
        let number = ObjectBuilder::new().schema_type(Type::Number);
        let number = number.minimum(Some(0)).maximum(Some(100)).multiple_of(Some(0.001));
        done(number.description(Some("A percentage with at most three decimals.")))
    }
}

impl ToSchema for Percent {}

impl PartialSchema for Identifier {
    fn schema() -> RefOr<Schema> {
        let about = "What the app calls the identity: at most `limits.identifier_bytes` bytes.";
        done(text(about).min_length(Some(1)).pattern(Some(r"^[^\x00]+$")))
    }
}

impl ToSchema for Identifier {}

impl PartialSchema for TraitValue {
    fn schema() -> RefOr<Schema> {
        let about = "A boolean, a number or a string of at most `limits.trait_bytes` bytes.";
        let types = vec![Type::Null, Type::Boolean, Type::Integer, Type::Number, Type::String];
        done(
            ObjectBuilder::new()
                .schema_type(SchemaType::Array(types))
                .minimum(Some(i64::MIN))
                .maximum(Some(i64::MAX))
                .pattern(Some(r"^[^\x00]*$"))
                .description(Some(about)),
        )
    }
}

impl ToSchema for TraitValue {}

impl PartialSchema for Traits {
    fn schema() -> RefOr<Schema> {
        let name = text("What the app calls the trait.").min_length(Some(1));
        let name = name.max_length(Some(TRAIT_KEY_MAX)).pattern(Some(r"^[^\x00]+$"));
        let traits = ObjectBuilder::new().schema_type(Type::Object);
        let traits = traits.property_names(Some(done(name)));
        done(traits.additional_properties(Some(TraitValue::schema())))
    }
}

impl ToSchema for Traits {}

impl PartialSchema for TraitsText {
    fn schema() -> RefOr<Schema> {
        done(text("A JSON object of traits.").format(Some(custom("traits"))))
    }
}

impl ToSchema for TraitsText {}

impl PartialSchema for Time {
    fn schema() -> RefOr<Schema> {
        done(text("RFC 3339.").format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime))))
    }
}

impl ToSchema for Time {}

impl PartialSchema for Day {
    fn schema() -> RefOr<Schema> {
        let format = Some(SchemaFormat::KnownFormat(KnownFormat::Date));
        done(text("`2026-01-31`, UTC.").format(format))
    }
}

impl ToSchema for Day {}

impl PartialSchema for Seconds {
    fn schema() -> RefOr<Schema> {
        let number = ObjectBuilder::new().schema_type(Type::Number).minimum(Some(0));
        done(number.description(Some("Seconds since the epoch.")))
    }
}

impl ToSchema for Seconds {}

impl PartialSchema for Id {
    fn schema() -> RefOr<Schema> {
        let format = Some(SchemaFormat::KnownFormat(KnownFormat::Int64));
        let number = integer("Row number.").format(format);
        done(number.minimum(Some(1)).maximum(Some(i64::MAX)))
    }
}

impl ToSchema for Id {}

impl PartialSchema for Limit {
    fn schema() -> RefOr<Schema> {
        let number = integer("Rows at most; 50 if absent.");
        done(number.minimum(Some(1)).maximum(Some(PAGE_MAX)))
    }
}

impl ToSchema for Limit {}

impl PartialSchema for Cursor {
    fn schema() -> RefOr<Schema> {
        done(text("`next_cursor` of the page before.").format(Some(custom("cursor"))))
    }
}

impl ToSchema for Cursor {}

impl PartialSchema for TextCursor {
    fn schema() -> RefOr<Schema> {
        done(text("`next_cursor` of the page before.").format(Some(custom("text-cursor"))))
    }
}

impl ToSchema for TextCursor {}
