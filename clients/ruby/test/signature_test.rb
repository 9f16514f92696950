# frozen_string_literal: true

# Signatures: the published vector, and everything that only looks like one.

require_relative "world"

class SignatureTest < Minitest::Test
  ID = "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk"
  AT = "1649367553"
  BODY = '{"email":"test@example.com","username":"test_user"}'
  SECRET = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
  GOOD = "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw="

  def match?(header, secrets: [SECRET], id: ID, at: AT, body: BODY)
    Flagcast::Signatures.match?(header, secrets.map { |text| Flagcast::Secret.parse(text) }, id, at, body)
  end

  def test_the_published_vector_fits
    assert match?(GOOD)
    assert match?(GOOD, body: BODY.b)
  end

  def test_forgeries_do_not_fit
    refute match?(GOOD, secrets: [Deliveries::OTHER])
    refute match?(GOOD, id: "#{ID}x")
    refute match?(GOOD, at: "1649367554")
    refute match?(GOOD, body: "#{BODY} ")
    refute match?(GOOD, body: BODY.sub("test_user", "test_usex"))
    # The same JSON in other bytes.
    refute match?(GOOD, body: JSON.generate(JSON.parse(BODY), space: " "))
    [
      "", " ", "v1", "v1,", "v1,=", GOOD.delete_prefix("v1,"), GOOD[0..-2], "#{GOOD}=", GOOD.sub("tZ", "tz"),
      GOOD.sub("v1,", "v1a,"), GOOD.sub("v1,", "v2,"), GOOD.sub("v1,", "V1,"), GOOD.sub(",", ";"), "v1,\u00e9",
      GOOD.sub("/", "_"), "v1,#{["short"].pack("m0")}", "v1,#{["x" * 33].pack("m0")}",
    ].each { |header| refute match?(header), header }
  end

  def test_one_of_several_is_enough
    other = Deliveries.sign(Deliveries::OTHER, ID, AT, BODY)
    assert match?("#{other} #{GOOD}")
    assert match?("#{GOOD} #{other}")
    assert match?("v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg== #{GOOD}")
    assert match?(other, secrets: [SECRET, Deliveries::OTHER])
    refute match?("#{other} #{other}")
  end

  def test_a_secret_has_24_to_64_bytes
    of = ->(bytes) { "whsec_#{["k" * bytes].pack("m0")}" }
    [24, 25, 32, 64].each { |bytes| assert Flagcast::Secret.parse(of[bytes]), bytes.to_s }
    bad = [of[23], of[65], "whsec_", "", nil, 5, of[32].delete_prefix("whsec_"), "#{of[32]}\n", "whsec_#{"?" * 32}",
           "WHSEC_#{["k" * 32].pack("m0")}"]
    bad.each { |text| assert_nil Flagcast::Secret.parse(text), text.inspect }
  end

  def test_a_secret_shows_itself_to_nobody
    secret = Flagcast::Secret.parse(SECRET)
    assert_equal ["#<Flagcast::Secret>"] * 3, [secret.inspect, secret.to_s, "#{secret}"]
  end
end
