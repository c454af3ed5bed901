# Answers as the workers in examples/ do: `VERSION PID SLOT GENERATION`.

run lambda { |_environment|
  words = [
    ENV.fetch('VERSION', 'dev'),
    Process.pid,
    ENV.fetch('SHEPHERD_SLOT', '-'),
    ENV.fetch('SHEPHERD_GENERATION', '-')
  ]
  body = "#{words.join(' ')}\n"
  headers = { 'Content-Type' => 'text/plain', 'Content-Length' => body.bytesize.to_s }
  [200, headers, [body]]
}
