class ClipperMetrics < Formula
  desc "InfluxDB and Grafana for Clipper's metrics: started, configured and verified"
  homepage "@REPOSITORY@"
  url "@REPOSITORY@/archive/refs/tags/v@VERSION@.tar.gz"
  sha256 "@SHA256@"
  license "Apache-2.0"

  depends_on "rust" => :build

  def install
    system "cargo", "install", *std_cargo_args
    generate_completions_from_executable(bin/"clipper-metrics", "completions")
    pages = Utils.safe_popen_read(bin/"clipper-metrics", "--help")
                 .lines.drop_while { |line| line.chomp != "Commands:" }.drop(1)
                 .take_while { |line| line.start_with?("  ") }
                 .map { |line| line.split.first } - ["help"]
    (buildpath/"clipper-metrics.1").write Utils.safe_popen_read(bin/"clipper-metrics", "man")
    pages.each do |page|
      (buildpath/"clipper-metrics-#{page}.1").write Utils.safe_popen_read(bin/"clipper-metrics", "man", page)
    end
    man1.install Dir["clipper-metrics*.1"]
  end

  def caveats
    <<~EOS
      clipper-metrics needs a Docker engine, such as colima:
        brew install colima docker && colima start
      or servers that already run:
        brew install influxdb@1 grafana
        brew services start influxdb@1 && brew services start grafana
    EOS
  end

  test do
    assert_match version.to_s, shell_output("#{bin}/clipper-metrics --version")
    # An export needs no engine.
    system bin/"clipper-metrics", "export", "kubernetes", testpath/"files"
    assert_match "influxdb", (testpath/"files/README.md").read
  end
end
